"""Datasets on the Hugging Face hub: listing their files and fetching them one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from harness.benchmarks.benchmark import Source
from harness.errors import UserError


@dataclass(frozen=True)
class RemoteFile:
    """A file of a dataset: its path there and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True)
class Dataset:
    """A dataset at one commit. ``mirror`` is another hub's address, None for the official one."""

    source: Source
    commit: str
    mirror: str | None = None

    @property
    def page(self) -> str:
        return f"{self.mirror or 'https://huggingface.co'}/datasets/{self.source.hub}"

    def files(self) -> list[RemoteFile]:
        """The files that the source includes, sorted by path.

        Raises:
            UserError: the hub refuses or cannot be reached, or nothing matches.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        with _explained(self.source, self.page):
            tree = HfApi(endpoint=self.mirror).list_repo_tree(
                self.source.hub, repo_type="dataset", revision=self.commit, recursive=True
            )
            listed = [RemoteFile(entry.path, entry.size) for entry in tree if isinstance(entry, RepoFile)]
        if outside := [f.path for f in listed if ".." in PurePosixPath(f.path).parts or f.path.startswith("/")]:
            raise UserError(f"{self.page} lists a file outside of itself, {outside[0]!r}; use another mirror")
        wanted = [f for f in listed if any(fnmatch(f.path, pattern) for pattern in self.source.include)]
        if not wanted:
            found = ", ".join(sorted(f.path for f in listed)[:10]) or "nothing"
            raise UserError(f"{self.page} has no file like {', '.join(self.source.include)}; it has {found}")
        return sorted(wanted, key=lambda f: f.path)

    def fetch(self, file: RemoteFile, folder: Path) -> Path:
        """Download `file` below `folder`, going on where an earlier attempt stopped.

        Raises:
            UserError: as `files`.
        """
        from huggingface_hub import hf_hub_download

        with _explained(self.source, self.page):
            path = hf_hub_download(
                self.source.hub,
                file.path,
                repo_type="dataset",
                revision=self.commit,
                local_dir=folder,
                endpoint=self.mirror,
            )
        return Path(path)


def resolve(source: Source, mirror: str | None = None) -> Dataset:
    """The dataset at the commit that the source's revision means now.

    Raises:
        UserError: as `Dataset.files`.
    """
    from huggingface_hub import HfApi

    page = Dataset(source, source.revision, mirror).page
    with _explained(source, page):
        commit = HfApi(endpoint=mirror).dataset_info(source.hub, revision=source.revision).sha
    return Dataset(source, commit or source.revision, mirror)


@contextmanager
def _explained(source: Source, page: str) -> Iterator[None]:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    # The bases of HfHubHTTPError are the errors of whichever HTTP client the library is built on.
    failures: tuple[type[Exception], ...] = (
        *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)),
        LocalEntryNotFoundError,
        OSError,
    )
    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"{source.hub} asks for consent: accept its terms on {page} (logged in), then `hf auth login`, "
            "then run the same command again"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{page} does not exist or is not visible to you; log in with `hf auth login`") from error
    except failures as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{page} could not be read ({first}); run the same command again, it goes on where it stopped, or use a "
            "mirror (data.mirror=https://...) or files on disk (data.source=DIR)"
        ) from error
