"""What the agent leaves for its next process."""

from pathlib import Path

from tests.router.specs import fleet, route

from sluice.api.routes import RouteSample
from sluice.router.clusters import Host
from sluice.router.files import Files
from sluice.router.ledger import Served
from sluice.router.standing import Placed


def placed(name: str, *hosts: Host) -> Placed:
    return Placed("Churn", fleet(name, sample=RouteSample(body="x")), 60, hosts)


def served(endpoint: str, generation: int = 1) -> Served:
    return Served(f"u-{endpoint}", endpoint.lower(), generation, route(endpoint, fleet("a")))


def inodes(directory: Path) -> dict[str, int]:
    """A file that is written anew is another file."""
    return {str(path.relative_to(directory)): path.stat().st_ino for path in directory.rglob("*.json")}


def test_the_next_process_reads_what_was_kept(tmp_path: Path) -> None:
    fleets = {"a": placed("a", Host("10.0.0.1", passed=True), Host("fd00::1")), "b": placed("b")}
    endpoints = {"Churn": served("Churn"), "churn": served("churn", 7)}
    Files(tmp_path).keep(fleets, endpoints)
    assert Files(tmp_path).read() == (fleets, endpoints)
    assert Files(tmp_path / "new").read() == ({}, {})


def test_a_change_among_200_writes_one_file(tmp_path: Path) -> None:
    files = Files(tmp_path)
    fleets = {f"f{number}": placed(f"f{number}", Host("10.0.0.1")) for number in range(200)}
    endpoints = {f"E{number}": served(f"E{number}") for number in range(200)}
    files.keep(fleets, endpoints)
    before = inodes(tmp_path)
    assert len(before) == 400
    files.keep(fleets, {**endpoints, "E7": served("E7", 2)})
    after = inodes(tmp_path)
    assert [name for name in after if after[name] != before[name]] == ["endpoints/E7.json"]
    again = Files(tmp_path)
    kept_fleets, kept_endpoints = again.read()
    del kept_fleets["f7"], kept_endpoints["E8"]
    again.keep(kept_fleets, kept_endpoints)
    assert after.keys() - inodes(tmp_path).keys() == {"fleets/f7.json", "endpoints/E8.json"}
    assert {name: one for name, one in after.items() if name in inodes(tmp_path)} == inodes(tmp_path)


def test_a_file_that_a_lost_node_left_half_written_is_left_out(tmp_path: Path) -> None:
    Files(tmp_path).keep({"a": placed("a")}, {"Churn": served("Churn"), "Other": served("Other")})
    (tmp_path / "endpoints" / "Churn.json").write_text("")
    _, endpoints = Files(tmp_path).read()
    assert endpoints.keys() == {"Other"}
    assert not (tmp_path / "endpoints" / "Churn.json").exists()
