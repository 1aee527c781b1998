"""Model data in S3: what is there, and its bytes, by range and only of the version that was found."""

import base64
import binascii
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final, cast

from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    Credentials,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    ResponseStreamingError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)
from botocore.session import Session
from urllib3.exceptions import HTTPError

from sluice.loader.deadline import LONGEST_SOCKET_WAIT_SECONDS
from sluice.loader.failure import LoadFailed, Transient, failed
from sluice.loader.item import Checks, Found, Item
from sluice.loader.paths import ARCHIVE, BadName, check_no_clash, check_relative
from sluice.loader.request import LoadRequest, Source
from sluice.loader.version import Version, digest_of, moved

CHUNK_BYTES: Final = 256 * 1024
MAX_OBJECTS: Final = 1_000_000
MAX_NAME_CHARACTERS: Final = 128 * 1024**2
"""A million objects with names of so much in all are some 500 MiB of the 1 GiB that the loader's container has."""
_GONE: Final = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound", "MethodNotAllowed", "405"})
_TRANSIENT_CODES: Final = frozenset(
    {"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException"}
)
_CHECKSUMS: Final = ("sha256", "sha1", "crc64nvme", "crc32c", "crc32")
_MD5: Final = re.compile(r"[0-9a-f]{32}")
_NUMBER: Final = re.compile(r"\d{3}")

# botocore logs a refused AssumeRole with a traceback; here it is told once, in the termination message.
logging.getLogger("botocore.credentials").setLevel(logging.ERROR)


class _AssumeRole(CredentialProvider):
    METHOD = "sluice-loader-assume-role"

    def __init__(self, fetcher: AssumeRoleCredentialFetcher) -> None:
        super().__init__()
        self._fetcher = fetcher

    def load(self) -> Credentials:
        return DeferredRefreshableCredentials(refresh_using=self._fetcher.fetch_credentials, method=self.METHOD)


class S3:
    """The door to S3, with the credentials of the environment or of the role that is to be assumed."""

    def __init__(self, request: LoadRequest) -> None:
        self._request = request
        # Python's SDK reads AWS_DEFAULT_REGION only; pods of other tools have AWS_REGION.
        self._region = request.region or os.environ.get("AWS_REGION")
        self._lock = threading.Lock()
        self._client: Any = None

    @property
    def endpoint_url(self) -> str | None:
        """Of another S3 than AWS'."""
        return self._request.endpoint_url

    @property
    def client(self) -> Any:
        """botocore's client, made when it is first needed: https sources need no credentials."""
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client

    def _make(self) -> Any:
        request = self._request
        config = Config(
            connect_timeout=10,
            read_timeout=LONGEST_SOCKET_WAIT_SECONDS,
            retries={"mode": "standard", "total_max_attempts": 4},
            max_pool_connections=request.concurrency,
            response_checksum_validation="when_required",  # a range has no checksum of its own; whole files are checked
            s3={"addressing_style": "path"} if request.endpoint_url else None,
            user_agent_extra="sluice-loader",
        )
        session = Session()
        if request.assume_role_arn is not None:
            session = self._assumed(session, request.assume_role_arn)
        return session.create_client("s3", region_name=self._region, endpoint_url=request.endpoint_url, config=config)

    def _assumed(self, own: Session, role_arn: str) -> Session:
        source = own.get_credentials()
        if source is None:
            raise NoCredentialsError
        extra = {"RoleSessionName": "sluice-loader"}
        if self._request.external_id is not None:
            extra["ExternalId"] = self._request.external_id

        def client(service: str, **keywords: Any) -> Any:
            return own.create_client(service, region_name=self._region, **keywords)

        assumed = Session()
        provider = _AssumeRole(AssumeRoleCredentialFetcher(client, source, role_arn, extra_args=extra))
        assumed.register_component("credential_provider", CredentialResolver([provider]))
        return assumed

    def find(self, source: Source, recorded: Version | None) -> Found:
        """What the source is now. Raises LoadFailed or Transient."""
        bucket, key = split(source.uri)
        if source.kind == "Prefix":
            return self._find_prefix(source, bucket, key)
        wanted = recorded.version_id if recorded is not None else None
        item = S3Object(self, bucket, "", key, wanted if wanted != "null" else None)
        try:
            head = item.head()
        except _Gone as gone:
            if recorded is None or wanted is None:
                raise failed(source.uri, gone.code) from None
            raise moved(source.uri, str(recorded), f"{gone.code} (that version is gone)", "this fleet runs") from None
        if not head.get("ETag"):
            raise failed(source.uri, f"the answer of {self.endpoint_url or 'S3'} has no ETag: it is no S3 service")
        item.e_tag = head["ETag"].strip('"')
        modified = head.get("LastModified")
        version = Version(
            e_tag=item.e_tag,
            version_id=head.get("VersionId"),
            size=int(head["ContentLength"]),
            last_modified=modified.isoformat() if modified is not None else None,
        )
        name = ARCHIVE if source.unpacked else key.rpartition("/")[2]
        _check_names(source.uri, [name])
        return Found(version, (Item(name, version.size, item),))

    def _find_prefix(self, source: Source, bucket: str, prefix: str) -> Found:
        items: list[Item] = []
        characters = 0
        try:
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for listed in page.get("Contents", ()):
                    name, size, e_tag = listed["Key"][len(prefix) :], int(listed["Size"]), listed["ETag"].strip('"')
                    items.append(Item(name, size, S3Object(self, bucket, prefix, name, None, e_tag)))
                    characters += len(name)
                if len(items) > MAX_OBJECTS:
                    raise failed(source.uri, f"more than {MAX_OBJECTS} objects", "TooLarge")
                if characters > MAX_NAME_CHARACTERS:
                    raise failed(
                        source.uri,
                        f"the objects' names have more than {MAX_NAME_CHARACTERS} characters together",
                        "TooLarge",
                    )
        except (BotoCoreError, ClientError, HTTPError) as error:
            raise problem(source.uri, error) from error
        if not items:
            raise failed(source.uri, "there is no object under this prefix")
        _check_names(source.uri, [item.path for item in items])
        items.sort(key=lambda item: item.path)
        digest = digest_of((item.path, cast(S3Object, item.reader).e_tag or "", item.size or 0) for item in items)
        return Found(Version(digest=digest, size=sum(item.size or 0 for item in items)), tuple(items))


class S3Object:
    """One object in one version. Implements Reader. There may be a million: what they share is theirs together."""

    __slots__ = ("_bucket", "_name", "_prefix", "_s3", "_version_id", "e_tag")

    def __init__(
        self, s3: S3, bucket: str, prefix: str, name: str, version_id: str | None, e_tag: str | None = None
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._prefix = prefix
        self._name = name
        self._version_id = version_id
        self.e_tag = e_tag

    @property
    def _key(self) -> str:
        return self._prefix + self._name

    @property
    def _uri(self) -> str:
        return f"s3://{self._bucket}/{self._key}"

    @property
    def _which(self) -> dict[str, str]:
        named = {"Bucket": self._bucket, "Key": self._key}
        return named | ({"VersionId": self._version_id} if self._version_id else {})

    def head(self) -> Any:
        """HeadObject, with checksums. Raises _Gone, LoadFailed or Transient."""
        request = self._which | {"ChecksumMode": "ENABLED"}
        if self.e_tag is not None:
            request["IfMatch"] = f'"{self.e_tag}"'
        try:
            return self._s3.client.head_object(**request)
        except ClientError as error:
            # A HEAD has no body, hence only a number for a reason; the same as a GET says it in words.
            if _NUMBER.fullmatch(_code(error)) and _status(error) < 500 and _status(error) != 412:
                error = self._in_words(error)
            if _code(error) in _GONE:
                raise _Gone(_code(error)) from error
            raise problem(self._uri, error) from error
        except (BotoCoreError, HTTPError) as error:
            raise problem(self._uri, error) from error

    def _in_words(self, error: ClientError) -> ClientError:
        try:
            self._s3.client.get_object(**self._which, Range="bytes=0-0")["Body"].close()
        except ClientError as telling:
            return telling
        except (BotoCoreError, HTTPError):
            return error
        return error

    def read(self, start: int, length: int | None) -> Iterator[bytes]:
        """See Reader."""
        if length is None:
            raise TypeError("S3 always says how long an object is")
        if length == 0:
            return
        try:
            answer = self._s3.client.get_object(
                **self._which, IfMatch=f'"{self.e_tag}"', Range=f"bytes={start}-{start + length - 1}"
            )
            with closing(answer["Body"]) as body:
                if answer["ETag"].strip('"') != self.e_tag:
                    raise moved(self._uri, f"ETag {self.e_tag}", f"ETag {answer['ETag']}", "the download began with")
                if int(answer["ContentLength"]) != length:
                    raise failed(self._uri, f"asked for {length} bytes, got {answer['ContentLength']}")
                while chunk := body.read(CHUNK_BYTES):
                    yield chunk
        except (BotoCoreError, ClientError, HTTPError) as error:
            raise self._changed(error) from error

    def _changed(self, error: Exception) -> LoadFailed | Transient:
        code = _code(error) if isinstance(error, ClientError) else ""
        if code in ("PreconditionFailed", "412", "InvalidRange") or code in _GONE:
            return moved(self._uri, f"ETag {self.e_tag}", f"another object ({code})", "the download began with")
        return problem(self._uri, error)

    def checks(self) -> Checks:
        """See Reader: a checksum of the whole object, else the MD5 that an ETag is where S3 does not encrypt by key."""
        try:
            head = self.head()
        except _Gone as gone:
            raise moved(self._uri, f"ETag {self.e_tag}", gone.code, "the download began with") from gone
        digests: dict[str, str] = {}
        if head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
            for algorithm in _CHECKSUMS:
                value = head.get(f"Checksum{algorithm.upper()}")
                if value and "-" not in value:
                    digests[algorithm] = _hexadecimal(value)
        plain = head.get("ServerSideEncryption", "AES256") == "AES256" and not head.get("SSECustomerAlgorithm")
        # Directory buckets have ETags that are no MD5.
        md5_e_tags = not self._bucket.endswith("--x-s3")
        if plain and md5_e_tags and self.e_tag is not None and _MD5.fullmatch(self.e_tag):
            digests["md5"] = self.e_tag
        return Checks(digests)


class _Gone(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = {"404": "NoSuchKey", "405": "NoSuchVersion", "MethodNotAllowed": "NoSuchVersion"}.get(code, code)


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key. A key may hold any character, so it is no URL to be parsed."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def problem(uri: str, error: Exception) -> LoadFailed | Transient:
    """What an error of botocore means: worth another try, or final, with its code and what to do."""
    if isinstance(error, ClientError):
        code, status = _code(error), _status(error)
        if code in _TRANSIENT_CODES or status >= 500 or status == 429:
            return Transient(f"{code} (HTTP {status})")
        if error.operation_name.startswith("AssumeRole"):
            return failed(uri, f"{code} from {error.operation_name}: {_message(error)}")
        return failed(uri, _explained(code, _message(error)))
    if isinstance(error, NoCredentialsError):
        return failed(
            uri,
            "NoCredentials: there are no AWS credentials in this pod; give its ServiceAccount a role (IRSA or Pod "
            "Identity), or the Model a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    # Credentials may come from an agent on the node that is not up yet.
    again = (
        *(HTTPClientError, BotoConnectionError, ResponseStreamingError, IncompleteReadError, HTTPError),
        *(CredentialRetrievalError, MetadataRetrievalError),
    )
    if isinstance(error, again):
        return Transient(f"{type(error).__name__}: {error}")
    return failed(uri, f"{type(error).__name__}: {error}")


def _explained(code: str, message: str) -> str:
    hints = {
        "AccessDenied": "this pod's credentials need s3:GetObject and s3:ListBucket, and kms:Decrypt for a key",
        "403": "AccessDenied: this pod's credentials need s3:GetObject and s3:ListBucket",
        "NoSuchBucket": "there is no such bucket",
        "NoSuchKey": "there is no such object",
    }
    parts = [code, message.rstrip("."), hints.get(code, "")]
    return ": ".join(part for part in parts if part)


def _check_names(uri: str, paths: list[str]) -> None:
    for path in paths:
        try:
            check_relative(path)
        except BadName as bad:
            raise failed(uri, f"object {path!a}: {bad}") from bad
    try:
        check_no_clash(paths)
    except BadName as bad:
        raise failed(uri, str(bad)) from bad


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "Unknown"))


def _message(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Message", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _hexadecimal(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).hex()
    except binascii.Error:
        raise Transient(f"a checksum that is not base64: {value}") from None
