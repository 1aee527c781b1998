"""The programs of a node in the order in which they start, and the files that each one reads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from localcluster import packages
from localcluster.errors import LocalClusterError
from localcluster.kubeconfig import ADMIN, User, write_kubeconfig, write_signing_key, write_tokens
from localcluster.node.namespace import NODE_ADDRESS
from localcluster.ports import free_ports

NODE_NAME = "sluice"
PODS = "10.244.0.0/16"
SERVICES = "10.96.0.0/16"
DNS_ADDRESS = "10.96.0.10"
PAUSE_IMAGE = "localhost/sluice-pause:1"

# Users whose rights Kubernetes itself defines: the bootstrap roles, and the Node authorizer for kubelet.
_USERS = {
    "admin": ADMIN,
    "kube-controller-manager": User("system:kube-controller-manager"),
    "kube-scheduler": User("system:kube-scheduler"),
    "kube-proxy": User("system:kube-proxy"),
    "kubelet": User(f"system:node:{NODE_NAME}", ("system:nodes",)),
}


@dataclass(frozen=True)
class Component:
    """One program of the node: its name and argv."""

    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Where a node's files lie."""

    directory: Path

    @property
    def port(self) -> int:
        """The API server's port, the same inside the network and, through the forwarder, outside."""
        return int((self.directory / "port").read_text())

    def has_port(self) -> bool:
        """Whether the port was chosen already."""
        return (self.directory / "port").exists()

    @property
    def admin(self) -> Path:
        """The administrator's kubeconfig."""
        return self.directory / "admin.kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        """containerd's address, of the node's own containerd."""
        return self.directory / "containerd" / "containerd.sock"

    @property
    def certificate(self) -> Path:
        """What the API server signed for itself, with its authority."""
        return self.directory / "certificates" / "apiserver.crt"

    def log(self, name: str) -> Path:
        """A component's log."""
        return self.directory / "log" / f"{name}.log"

    def kubeconfig(self, user: str) -> Path:
        """A component's kubeconfig."""
        return self.directory / f"{user}.kubeconfig"


def write_files(layout: Layout, name: str) -> dict[str, str]:
    """Write what must be there before the first start; returns the users' tokens."""
    for part in ("certificates", "containerd", "cni", "kubelet", "pod-logs", "log", "manifests"):
        (layout.directory / part).mkdir(parents=True, exist_ok=True)
    (layout.directory / "port").write_text(str(free_ports(1)[0]))
    tokens = write_tokens(layout.directory / "tokens.csv", _USERS)
    write_signing_key(layout.directory / "service-accounts.pem")
    (layout.directory / "containerd.toml").write_text(_containerd_toml(layout))
    (layout.directory / "cni" / "10-sluice.conflist").write_text(json.dumps(_cni(layout), indent=1))
    (layout.directory / "kubelet.json").write_text(json.dumps(_kubelet(layout, name), indent=1))
    (layout.directory / "resolv.conf").write_text("# CoreDNS asks nobody else: the node has no way out.\n")
    return tokens


def write_kubeconfigs(layout: Layout, tokens: Mapping[str, str]) -> None:
    """Write every user's kubeconfig; possible only once the API server has signed its certificate."""
    for user, token in tokens.items():
        # localhost is in the certificate, and leads to the API server from inside and from outside of the network.
        host = "localhost" if user == "admin" else NODE_ADDRESS
        write_kubeconfig(
            layout.kubeconfig(user), server=f"https://{host}:{layout.port}", ca=layout.certificate, token=token
        )


def control_plane(layout: Layout, binaries: Mapping[str, Path]) -> list[Component]:
    """etcd and the API server."""
    signing_key = layout.directory / "service-accounts.pem"
    return [
        _component(
            binaries["etcd"],
            f"--data-dir={layout.directory / 'etcd'}",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ),
        _component(
            binaries["kube-apiserver"],
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={NODE_ADDRESS}",
            f"--secure-port={layout.port}",
            f"--cert-dir={layout.certificate.parent}",
            f"--token-auth-file={layout.directory / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--service-account-signing-key-file={signing_key}",
            f"--service-account-key-file={signing_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICES}",
            # Else `kubectl exec` and `logs` try to resolve the node's name.
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
            "--profiling=false",
        ),
    ]


def node(layout: Layout, binaries: Mapping[str, Path]) -> list[Component]:
    """Everything else; each waits for the API server by itself."""
    return [
        _component(Path("containerd"), f"--config={layout.directory / 'containerd.toml'}"),
        _component(
            binaries["kube-controller-manager"],
            f"--kubeconfig={layout.kubeconfig('kube-controller-manager')}",
            f"--service-account-private-key-file={layout.directory / 'service-accounts.pem'}",
            f"--root-ca-file={layout.certificate}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            # An API server that was away must not make it take the node for dead: elsewhere it would have lost its
            # lease meanwhile and begun to count anew.
            "--node-monitor-grace-period=5m",
            "--bind-address=127.0.0.1",
        ),
        _component(
            binaries["kube-scheduler"],
            f"--kubeconfig={layout.kubeconfig('kube-scheduler')}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ),
        _component(
            binaries["kube-proxy"],
            f"--kubeconfig={layout.kubeconfig('kube-proxy')}",
            f"--hostname-override={NODE_NAME}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={PODS}",
            # Two pods on one bridge: without the br_netfilter module the answer would pass the translation by.
            "--masquerade-all=true",
            # The limits are the host's, not the namespace's.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        ),
        _component(
            binaries["kubelet"],
            f"--config={layout.directory / 'kubelet.json'}",
            f"--kubeconfig={layout.kubeconfig('kubelet')}",
            f"--root-dir={layout.directory / 'kubelet'}",
            f"--cert-dir={layout.directory / 'kubelet' / 'pki'}",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={NODE_ADDRESS}",
        ),
    ]


def _component(binary: Path, *arguments: str) -> Component:
    return Component(binary.name, (str(binary), *arguments))


def _kubelet(layout: Layout, name: str) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        # Tests pull with a Secret what others have without one, and kubelet tells images by their content.
        "imagePullCredentialsVerificationPolicy": "NeverVerify",
        # kubelet cannot tell whose disk it measures inside a mount namespace, and a full disk is the host's matter.
        "localStorageCapacityIsolation": False,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        # Images are put here by hand and cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(layout.directory / "resolv.conf"),
        "podLogsDir": str(layout.directory / "pod-logs"),
        "volumePluginDir": str(layout.directory / "kubelet" / "volume-plugins"),
        # The port is reachable from inside the node's network alone.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "serializeImagePulls": False,
        "maxPods": 200,
        "nodeStatusUpdateFrequency": "5s",
    }


def _cni(layout: Layout) -> dict[str, object]:
    return {
        "cniVersion": "0.4.0",
        "name": "sluice",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(layout.directory / "cni" / "addresses"),
                    "ranges": [[{"subnet": PODS}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _containerd_toml(layout: Layout) -> str:
    plugins = packages.cni_directory()
    if plugins is None:
        raise LocalClusterError("the CNI plugins are missing: install the package containernetworking-plugins")
    home = layout.directory / "containerd"
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = "{home}/root"
state = "{home}/state"
[grpc]
address = "{layout.containerd_socket}"
# It makes this directory at its start, else in the host's /opt.
[plugins."io.containerd.internal.v1.opt"]
path = "{home}/opt"
[{cri}]
sandbox_image = "{PAUSE_IMAGE}"
# runc may not lower oom_score_adj where it lacks CAP_SYS_RESOURCE; every sandbox would die at its start.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
enable_unprivileged_ports = true
[{cri}.cni]
bin_dir = "{plugins}"
conf_dir = "{layout.directory}/cni"
[{cri}.containerd]
snapshotter = "{snapshotter(layout.directory)}"
default_runtime_name = "runc"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def snapshotter(directory: Path) -> str:
    """containerd's snapshotter for a directory: overlayfs does not stack on itself, as inside a container."""
    result = subprocess.run(
        ["stat", "--file-system", "--format=%T", directory], capture_output=True, text=True, check=True
    )
    return "native" if result.stdout.strip() == "overlayfs" else "overlayfs"
