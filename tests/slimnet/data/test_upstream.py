"""Published data sets. No test reaches the network; small files stand in for the real ones."""

import gzip
import hashlib
import pickle
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import pytest

from slimnet.data import Dataset, load_dataset
from slimnet.data.catalogue import PUBLISHED
from slimnet.data.upstream import DECODERS
from slimnet.errors import SlimnetError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
needs_debian_files = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason=f"{DEBIAN} (Debian package dataset-fashion-mnist) is not there"
)
PER_BATCH = 4


def python2_pickle(pixels: bytes, labels: list[int], key: str) -> bytes:
    """As Python 2 wrote CIFAR's batches: {"data": array (N, 3072) of uint8, key: list of int}, protocol 2."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K" + bytes([len(labels)]) + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + len(pixels).to_bytes(4, "little") + pixels + b"tb"
    )
    label_list = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(U\x04data" + array + b"U" + bytes([len(key)]) + key.encode() + label_list + b"u."


@pytest.fixture
def tiny_cifar(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the unpacked files of a tiny CIFAR (CIFAR-10 unless asked), whose md5 slimnet expects."""
    name, key = getattr(request, "param", ("cifar10", "labels"))
    (archive,) = PUBLISHED[name].archives
    folder = tmp_path / "tiny" / archive.folder
    folder.mkdir(parents=True)
    sums = {}
    for batch, member in enumerate(archive.members):
        pixels = np.full((PER_BATCH, 3, 32, 32), batch, np.uint8)
        pixels[:, 1, 0, 31] = 200  # green, top right
        content = python2_pickle(pixels.tobytes(), [batch + 3, 1, 2, batch], key)
        (folder / member).write_bytes(content)
        sums[member] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    tiny = replace(archive, members=sums)
    monkeypatch.setitem(PUBLISHED, name, replace(PUBLISHED[name], archives=(tiny,)))
    return folder


def packed(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    return archive


def check_tiny_cifar10(data: Dataset) -> None:
    assert (data.num_classes, data.image_shape) == (10, (3, 32, 32))
    assert data.x_train[:, 5, 5, 0].tolist() == [batch for batch in range(5) for _ in range(PER_BATCH)]
    assert data.y_train[:5].tolist() == [3, 1, 2, 0, 4]
    assert data.y_test.tolist() == [8, 1, 2, 5]
    assert (
        data.x_train[:, 0, 31] == [[batch, 200, batch] for batch in range(5) for _ in range(PER_BATCH)]
    ).all()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every download goes to a port of this machine where nothing listens."""
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(
        "urllib.request._opener", None
    )  # made at the first request, with its proxies, for good


def test_the_addresses_and_md5_sums_are_torchvisions() -> None:
    from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

    for name, theirs in (("cifar10", CIFAR10), ("cifar100", CIFAR100)):
        (archive,) = PUBLISHED[name].archives
        assert (archive.url, archive.md5) == (theirs.url, theirs.tgz_md5)
        assert (str(archive.path), str(archive.folder)) == (theirs.filename, theirs.base_folder)
        assert archive.members == dict([*theirs.train_list, *theirs.test_list])
    archives = PUBLISHED["fashion-mnist"].archives
    assert [(a.path.name, a.md5) for a in archives] == FashionMNIST.resources
    assert all(a.url == FashionMNIST.mirrors[0] + a.path.name for a in archives)


# ----------------------------------------------------------------------------------- what is already there


def test_cifar10_from_an_unpacked_folder(tiny_cifar: Path) -> None:
    check_tiny_cifar10(load_dataset("cifar10", data_dir=tiny_cifar.parent))
    check_tiny_cifar10(load_dataset("cifar10", data_dir=tiny_cifar))


def test_cifar10_from_an_archive_leaves_the_folder_as_it_was(tiny_cifar: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    archive = packed(tiny_cifar, tmp_path / "data" / "cifar-10-python.tar.gz")
    check_tiny_cifar10(load_dataset("cifar10", data_dir=tmp_path / "data"))
    assert list((tmp_path / "data").iterdir()) == [archive]


def test_an_archive_completes_a_folder_that_lacks_a_file(tiny_cifar: Path) -> None:
    packed(tiny_cifar, tiny_cifar.parent / "cifar-10-python.tar.gz")
    (tiny_cifar / "data_batch_3").unlink()
    check_tiny_cifar10(load_dataset("cifar10", data_dir=tiny_cifar.parent))


@pytest.mark.parametrize("tiny_cifar", [("cifar100", "fine_labels")], indirect=True)
def test_cifar100_takes_the_fine_labels(tiny_cifar: Path) -> None:
    data = load_dataset("cifar100", data_dir=tiny_cifar.parent)
    assert data.num_classes == 100
    assert (data.y_train.tolist(), data.y_test.tolist()) == ([3, 1, 2, 0], [4, 1, 2, 1])


@needs_debian_files
def test_fashion_mnist_from_archives_and_from_unpacked_files(tmp_path: Path) -> None:
    from_archives = load_dataset("fashion-mnist", data_dir=DEBIAN, image_size=14)
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in DEBIAN.glob("*.gz"):
        (raw / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))
    unpacked = load_dataset("fashion-mnist", data_dir=tmp_path)

    assert (unpacked.num_classes, unpacked.image_shape) == (10, (1, 28, 28))
    assert np.bincount(unpacked.y_train).tolist() == [6000] * 10
    assert np.bincount(unpacked.y_test).tolist() == [1000] * 10
    assert np.array_equal(from_archives.y_train, unpacked.y_train)
    assert from_archives.x_train.shape == (60000, 14, 14, 1)
    mini = load_dataset("fashion-mini")
    first = np.flatnonzero(unpacked.y_train == 7)[0]
    assert np.array_equal(unpacked.x_train[first], mini.x_train[np.flatnonzero(mini.y_train == 7)[0]])


# -------------------------------------------------------------------------------------------- what is damaged


def test_a_damaged_archive_is_named_and_left_alone(tmp_path: Path, no_network: None) -> None:
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"half a download")
    found = hashlib.md5(b"half a download", usedforsecurity=False).hexdigest()
    expected = "c58f30108f718f92721af3b95e74349a"
    with pytest.raises(SlimnetError, match=rf"{archive} is damaged.*md5 {found}, expected {expected}"):
        load_dataset("cifar10", data_dir=tmp_path)
    assert archive.read_bytes() == b"half a download"


def test_an_archive_with_other_batches_is_refused(tiny_cifar: Path, tmp_path: Path) -> None:
    (tiny_cifar / "data_batch_2").write_bytes(b"other")
    packed(tiny_cifar, tmp_path / "cifar-10-python.tar.gz")
    with pytest.raises(SlimnetError, match=r"cifar-10-python.tar.gz is damaged"):
        load_dataset("cifar10", data_dir=tmp_path)


def test_a_damaged_unpacked_file_is_named_and_never_unpickled(tiny_cifar: Path) -> None:
    batch = tiny_cifar / "data_batch_2"
    content = batch.read_bytes()
    batch.write_bytes(content[:-1])
    found = hashlib.md5(content[:-1], usedforsecurity=False).hexdigest()
    with pytest.raises(SlimnetError, match=rf"{batch} is damaged.*md5 {found}"):
        load_dataset("cifar10", data_dir=tiny_cifar.parent)


def test_a_batch_may_name_nothing_but_its_array(tiny_cifar: Path) -> None:
    hostile = dict.fromkeys(PUBLISHED["cifar10"].archives[0].members, pickle.dumps(print))
    with pytest.raises(pickle.UnpicklingError, match="has no place in a CIFAR batch"):
        DECODERS["cifar10"](hostile)


# ------------------------------------------------------------------------------------------------- downloads


def test_a_failed_download_says_what_to_fetch_and_where_to_put_it(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(SlimnetError) as failure:
        load_dataset("cifar10", data_dir=tmp_path / "new")
    message = str(failure.value)
    assert f"{tmp_path / 'new' / 'cifar-10-python.tar.gz'} is missing and could not be downloaded" in message
    assert "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz" in message
    assert "md5 c58f30108f718f92721af3b95e74349a" in message


def test_a_failed_download_names_every_file_of_the_set(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(SlimnetError) as failure:
        load_dataset("fashion-mnist", data_dir=tmp_path)
    for archive in PUBLISHED["fashion-mnist"].archives:
        assert f"{archive.url} (md5 {archive.md5}) to be put at {tmp_path / archive.path}" in str(
            failure.value
        )


class Upstream(SimpleHTTPRequestHandler):
    """Serves a folder and writes down what was asked for."""

    requests: ClassVar[list[str]] = []

    def log_message(self, *args: object) -> None:
        self.requests.append(self.path)


@pytest.fixture
def served_cifar(tiny_cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The tiny CIFAR-10 as an archive on a server on this machine, from where slimnet expects to fetch it."""
    site = tmp_path / "site"
    site.mkdir()
    remote = packed(tiny_cifar, site / "cifar-10-python.tar.gz")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Upstream.requests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Upstream, directory=str(site))) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        expect(
            monkeypatch,
            url=f"http://127.0.0.1:{server.server_port}/{remote.name}",
            md5=hashlib.md5(remote.read_bytes(), usedforsecurity=False).hexdigest(),
        )
        yield remote
        server.shutdown()


def expect(monkeypatch: pytest.MonkeyPatch, *, url: str, md5: str) -> None:
    source = PUBLISHED["cifar10"]
    archive = replace(source.archives[0], url=url, md5=md5)
    monkeypatch.setitem(PUBLISHED, "cifar10", replace(source, archives=(archive,)))


def test_a_download_is_kept_and_not_fetched_again(served_cifar: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "cifar-10-python.tar.gz.part").write_bytes(b"left by a process that was killed")

    check_tiny_cifar10(load_dataset("cifar10", data_dir=data_dir))
    assert (data_dir / "cifar-10-python.tar.gz").read_bytes() == served_cifar.read_bytes()
    assert not (data_dir / "cifar-10-python.tar.gz.part").exists()
    served_cifar.unlink()
    check_tiny_cifar10(load_dataset("cifar10", data_dir=data_dir))


def test_of_several_at_once_only_one_downloads(served_cifar: Path, tmp_path: Path) -> None:
    load_dataset("cifar10", data_dir=tmp_path / "alone")
    requests_of_one = len(Upstream.requests)
    Upstream.requests.clear()
    with ThreadPoolExecutor(4) as pool:
        for data in pool.map(lambda _: load_dataset("cifar10", data_dir=tmp_path / "shared"), range(4)):
            check_tiny_cifar10(data)
    assert len(Upstream.requests) == requests_of_one


def test_a_download_with_another_md5_is_thrown_away(
    served_cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect(monkeypatch, url=PUBLISHED["cifar10"].archives[0].url, md5="0" * 32)
    with pytest.raises(SlimnetError, match=r"what came has md5 [0-9a-f]{32}.*\n.*md5 0{32}"):
        load_dataset("cifar10", data_dir=tmp_path / "data")
    assert [path.suffix for path in (tmp_path / "data").iterdir()] in ([], [".lock"])


def test_a_data_folder_that_cannot_be_made(tmp_path: Path, no_network: None) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SlimnetError, match=r"is missing and could not be downloaded: .*file"):
        load_dataset("cifar10", data_dir=tmp_path / "file" / "data")
