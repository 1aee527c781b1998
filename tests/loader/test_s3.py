"""Model data in S3: forms, versions, refusals."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests.loader.conftest import BUCKET, REGION
from tests.loader.loading import archive, content, refused, request, run, source

FILES = {"model.bin": b"weights" * 10_000, "code/inference.py": b"def model_fn(d): ..."}


@pytest.fixture
def ask(moto_url: str, target: Path) -> Any:
    def made(
        uri: str, kind: str = "Archive", asked: dict[str, Any] | None = None, to: Path | None = None, **more: Any
    ) -> dict[str, Any]:
        return request(
            source(uri, to or target, kind=kind, **more), endpointUrl=moto_url, region=REGION, **(asked or {})
        )

    return made


def unpacked(files: dict[str, bytes]) -> dict[str, bytes | None]:
    folders = {name.rpartition("/")[0]: None for name in files if "/" in name}
    return {**files, **folders}


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_an_archive_is_unpacked(s3: Any, ask: Any, target: Path, mode: str) -> None:
    body = archive(FILES, mode)
    stored = s3.put_object(Bucket=BUCKET, Key="churn/model.tar.gz", Body=body)
    loaded = run(ask(f"s3://{BUCKET}/churn/model.tar.gz"))
    assert content(target) == unpacked(FILES)
    assert sorted(path.name for path in target.iterdir()) == ["code", "model.bin"]
    version = loaded.versions["model"]
    assert (version.e_tag, version.size) == (stored["ETag"].strip('"'), len(body))
    assert loaded.placed_bytes == sum(map(len, FILES.values()))


def test_an_object_with_gzip_is_an_archive_and_without_it_a_file(s3: Any, ask: Any, target: Path) -> None:
    body = archive(FILES)
    s3.put_object(Bucket=BUCKET, Key="a/m.tar.gz", Body=body)
    run(ask(f"s3://{BUCKET}/a/m.tar.gz", "Object", compression="Gzip"))
    assert content(target) == unpacked(FILES)
    run(ask(f"s3://{BUCKET}/a/m.tar.gz", "Object", compression="None"))
    assert content(target) == {"m.tar.gz": body}


def test_every_object_under_a_prefix_is_laid_out(s3: Any, ask: Any, target: Path) -> None:
    files = {"a": b"1", "deep/er/b": b"x" * 300_000, "empty": b"", "sp ace/ü?#%41": b"2"}
    for name, body in files.items():
        s3.put_object(Bucket=BUCKET, Key=f"m/v1/{name}", Body=body)
    s3.put_object(Bucket=BUCKET, Key="m/v10/not-this", Body=b"0")
    loaded = run(ask(f"s3://{BUCKET}/m/v1/", "Prefix", compression="None"))
    assert {name: body for name, body in content(target).items() if body is not None} == files
    first = loaded.versions["model"]
    assert first.digest is not None
    assert first.size == 300_002
    assert run(ask(f"s3://{BUCKET}/m/v1/", "Prefix")).versions["model"] == first
    s3.put_object(Bucket=BUCKET, Key="m/v1/a", Body=b"3")
    assert run(ask(f"s3://{BUCKET}/m/v1/", "Prefix")).versions["model"].digest != first.digest


def test_more_objects_than_a_listing_page(s3: Any, ask: Any, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")  # moto's server runs in this process
    for number in range(25):
        s3.put_object(Bucket=BUCKET, Key=f"many/{number:04}", Body=b"%d" % number)
    run(ask(f"s3://{BUCKET}/many/", "Prefix"))
    assert len(content(target)) == 25


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["m/a", "m/dir/"], "S3 console makes such objects"),
        (["m/"], "S3 console makes such objects"),
        (["m/a//b"], "empty or blank"),
        (["m/ /b"], "empty or blank"),
        (["m/a/./b"], "is ."),
        (["m/a/../b"], "is .."),
        (["m/" + "n" * 256], "more than 255 bytes"),
        (["m/a", "m/a/b"], "is a file and also a directory"),
        (["m/.sluice-loader/x"], "the loader's own"),
        ([], "no object under this prefix"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_names_that_sagemaker_refuses_under_a_prefix(s3: Any, ask: Any, keys: list[str], words: str) -> None:
    for key in keys:
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"1")
    failed = refused(ask(f"s3://{BUCKET}/m/", "Prefix"))
    assert failed.reason == "ModelDataFailed"
    assert words in str(failed)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"kind": "Prefix", "compression": "Gzip"}, "compressionType Gzip goes with s3DataType S3Object"),
        ({"kind": "Prefix", "eTag": "x"}, "eTag cannot be required of a prefix"),
        ({"kind": "Object", "manifestUri": "s3://models/manifest"}, "SageMaker does not document"),
        ({"kind": "Object", "manifestEtag": "x"}, "SageMaker does not document"),
    ],
    ids=str,
)
def test_what_has_no_meaning_is_refused(ask: Any, more: dict[str, Any], words: str) -> None:
    assert words in str(refused(ask(f"s3://{BUCKET}/m/", **more)))


def test_what_is_not_there_is_said(s3: Any, ask: Any) -> None:
    failed = refused(ask(f"s3://{BUCKET}/no/model.tar.gz"))
    assert str(failed).startswith(f"failed to download model data from s3://{BUCKET}/no/model.tar.gz: NoSuchKey")
    failed = refused(ask("s3://no-such-bucket/m.tar.gz"))
    assert str(failed).startswith("failed to download model data from s3://no-such-bucket/m.tar.gz: NoSuchBucket")


def test_a_required_e_tag(s3: Any, ask: Any, target: Path) -> None:
    tag = s3.put_object(Bucket=BUCKET, Key="m.tar.gz", Body=archive(FILES))["ETag"]
    run(ask(f"s3://{BUCKET}/m.tar.gz", eTag=tag))
    run(ask(f"s3://{BUCKET}/m.tar.gz", eTag=tag.strip('"')))
    failed = refused(ask(f"s3://{BUCKET}/m.tar.gz", eTag="other", to=target.with_name("other")))
    assert failed.reason == "SourceMoved"
    assert "other" in str(failed)
    assert tag.strip('"') in str(failed)


def record(path: Path, versions: dict[str, Any]) -> dict[str, Any]:
    path.write_text(json.dumps({name: json.dumps(version) for name, version in versions.items()}))
    return {"recordFile": str(path)}


def test_the_recorded_version_is_required(s3: Any, ask: Any, target: Path, tmp_path: Path) -> None:
    uri = f"s3://{BUCKET}/m.tar.gz"
    s3.put_object(Bucket=BUCKET, Key="m.tar.gz", Body=archive(FILES))
    absent = {"recordFile": str(tmp_path / "absent")}
    first = run(ask(uri, asked=absent)).versions["model"]
    kept = record(tmp_path / "record", {"model": first.as_json(), "another": {"eTag": "x"}})
    assert run(ask(uri, asked=kept)).versions["model"] == first
    other = s3.put_object(Bucket=BUCKET, Key="m.tar.gz", Body=archive({"other": b"1"}))["ETag"].strip('"')
    failed = refused(ask(uri, asked=kept, to=target.with_name("other")))
    assert failed.reason == "SourceMoved"
    assert first.e_tag in str(failed)
    assert other in str(failed)


def test_the_same_content_put_again_has_not_moved(s3: Any, ask: Any, tmp_path: Path) -> None:
    body = archive(FILES)
    s3.put_object(Bucket=BUCKET, Key="m.tar.gz", Body=body)
    first = run(ask(f"s3://{BUCKET}/m.tar.gz")).versions["model"].as_json()
    kept = record(tmp_path / "record", {"model": {**first, "lastModified": "2020-01-01T00:00:00+00:00"}})
    run(ask(f"s3://{BUCKET}/m.tar.gz", asked=kept))


def test_a_recorded_version_id_is_fetched_though_there_is_a_newer_one(
    s3: Any, ask: Any, target: Path, tmp_path: Path
) -> None:
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    uri = f"s3://{BUCKET}/m.tar.gz"
    s3.put_object(Bucket=BUCKET, Key="m.tar.gz", Body=archive(FILES))
    first = run(ask(uri)).versions["model"]
    assert first.version_id
    s3.put_object(Bucket=BUCKET, Key="m.tar.gz", Body=archive({"newer": b"1"}))
    kept = record(tmp_path / "record", {"model": first.as_json()})
    assert run(ask(uri, asked=kept)).versions["model"] == first
    assert content(target) == unpacked(FILES)
    s3.delete_object(Bucket=BUCKET, Key="m.tar.gz", VersionId=first.version_id)
    failed = refused(ask(uri, asked=kept, to=target.with_name("other")))
    assert failed.reason == "SourceMoved"
    assert first.version_id in str(failed)


def test_a_moved_prefix(s3: Any, ask: Any, target: Path, tmp_path: Path) -> None:
    s3.put_object(Bucket=BUCKET, Key="m/a", Body=b"1")
    first = run(ask(f"s3://{BUCKET}/m/", "Prefix")).versions["model"]
    kept = record(tmp_path / "record", {"model": first.as_json()})
    run(ask(f"s3://{BUCKET}/m/", "Prefix", asked=kept))
    s3.put_object(Bucket=BUCKET, Key="m/b", Body=b"2")
    failed = refused(ask(f"s3://{BUCKET}/m/", "Prefix", asked=kept, to=target.with_name("other")))
    assert failed.reason == "SourceMoved"
    assert str(first.digest) in str(failed)


@pytest.mark.parametrize("text", ["[1]", "{", '{"model": 1}', '{"model": "[]"}', '{"model": "{\\"size\\": \\"1\\"}"}'])
def test_a_record_that_cannot_be_read_stops_the_load(s3: Any, ask: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "record").write_text(text)
    s3.put_object(Bucket=BUCKET, Key="m.tar.gz", Body=archive(FILES))
    failed = refused(ask(f"s3://{BUCKET}/m.tar.gz", asked={"recordFile": str(tmp_path / "record")}))
    assert "recorded versions are not what was written" in str(failed)


def test_the_size_limit_holds_for_the_download(s3: Any, ask: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="m.bin", Body=b"x" * 100_000)
    failed = refused(ask(f"s3://{BUCKET}/m.bin", "Object", asked={"sizeLimitBytes": 99_999}))
    assert failed.reason == "TooLarge"
    assert "volumeSizeInGB" in str(failed)
    run(ask(f"s3://{BUCKET}/m.bin", "Object", asked={"sizeLimitBytes": 100_000}))


def test_the_size_limit_holds_for_what_is_unpacked(s3: Any, ask: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="m.tar.gz", Body=archive({"a": b"\0" * 200_000, "b": b"\0" * 200_000}))
    assert refused(ask(f"s3://{BUCKET}/m.tar.gz", asked={"sizeLimitBytes": 300_000})).reason == "TooLarge"
    run(ask(f"s3://{BUCKET}/m.tar.gz", asked={"sizeLimitBytes": 400_000}))


def test_the_size_limit_is_for_all_sources_together(s3: Any, moto_url: str, tmp_path: Path) -> None:
    s3.put_object(Bucket=BUCKET, Key="m.bin", Body=b"x" * 100_000)
    two = [source(f"s3://{BUCKET}/m.bin", tmp_path / "t" / name, name, "Object") for name in ("a", "b")]
    assert refused(request(*two, endpointUrl=moto_url, sizeLimitBytes=150_000)).reason == "TooLarge"
    run(request(*two, endpointUrl=moto_url, sizeLimitBytes=200_000))


@pytest.mark.parametrize("algorithm", ["SHA256", "SHA1", "CRC32"])
def test_a_checksum_of_the_whole_object_is_compared(s3: Any, ask: Any, target: Path, algorithm: str) -> None:
    body = b"y" * 200_000
    s3.put_object(Bucket=BUCKET, Key="m.bin", Body=body, ChecksumAlgorithm=algorithm)
    run(ask(f"s3://{BUCKET}/m.bin", "Object"))
    assert content(target) == {"m.bin": body}


def test_without_credentials_the_error_says_what_to_give(s3: Any, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    failed = refused(ask(f"s3://{BUCKET}/m.tar.gz"))
    assert "NoCredentials" in str(failed)
    assert "ServiceAccount" in str(failed)


def test_several_sources_are_in_place_together_or_not_at_all(s3: Any, moto_url: str, tmp_path: Path) -> None:
    s3.put_object(Bucket=BUCKET, Key="m.tar.gz", Body=archive(FILES))
    s3.put_object(Bucket=BUCKET, Key="bad.tar.gz", Body=gzip.compress(b"no tar at all"))
    model = source(f"s3://{BUCKET}/m.tar.gz", tmp_path / "t" / "model")
    bad = source(f"s3://{BUCKET}/bad.tar.gz", tmp_path / "t" / "more", "adapters")
    assert refused(request(model, bad, endpointUrl=moto_url)).reason == "BadArchive"
    s3.put_object(Bucket=BUCKET, Key="bad.tar.gz", Body=archive({"lora": b"1"}))
    loaded = run(request(model, bad, endpointUrl=moto_url))
    assert content(tmp_path / "t" / "model") == unpacked(FILES)
    assert content(tmp_path / "t" / "more") == {"lora": b"1"}
    assert loaded.placed_bytes == sum(map(len, FILES.values())) + 1


def test_the_target_may_be_a_mount_point_and_holds_only_the_data_after(s3: Any, ask: Any, target: Path) -> None:
    """A restart after success: what the earlier run left is replaced."""
    s3.put_object(Bucket=BUCKET, Key="m.tar.gz", Body=archive(FILES))
    run(ask(f"s3://{BUCKET}/m.tar.gz"))
    inode = target.stat().st_ino
    s3.put_object(Bucket=BUCKET, Key="m.tar.gz", Body=archive({"code": b"now a file", "new": b"1"}))
    run(ask(f"s3://{BUCKET}/m.tar.gz"))
    assert content(target) == {"code": b"now a file", "new": b"1"}
    assert target.stat().st_ino == inode
