"""A compression method: a dataclass of hyper-parameters that overrides the stages in which it differs.

`Method` itself is uncompressed chunked prefill. The driver (`prefill`) walks a prompt segment by segment and calls the
stages; it knows no method by name.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from harness.compress.positions import check_rule
from harness.compress.prompt import Prompt, Segment, whole_grids
from harness.errors import UserError
from harness.late import torch
from harness.settings.rules import check_settings

if TYPE_CHECKING:
    import numpy as np

    from harness.compress.prefill import Prefill


def checked_quirks(quirks: Mapping[str, bool], defaults: Mapping[str, bool], of: str) -> dict[str, bool]:
    """The quirks of a release with the user's switches applied; `of` names it in the error.

    Raises:
        UserError: a quirk that it does not have.
    """
    if unknown := sorted(set(quirks) - set(defaults)):
        allowed = ", ".join(sorted(defaults)) or "none"
        raise UserError(
            f"unknown quirk {', '.join(unknown)} for {of}: allowed are {allowed}; remove it from method.quirks"
        )
    return {**defaults, **{key: bool(value) for key, value in quirks.items()}}


@dataclass(frozen=True)
class Pruned:
    """What is left of a video before it enters the language model.

    Attributes:
        kept: [k] ascending, which of the V tokens stay; a merged token stays at one of its members' places.
        features: their features, each [k, d], where merging changed them; `None` = as they were.
        positions: ids [r, N - V + k] of the prompt that is left; `None` = every token keeps its own.
    """

    kept: torch.Tensor
    features: tuple[torch.Tensor, ...] | None = None
    positions: torch.Tensor | None = None


@dataclass(frozen=True)
class Candidates:
    """The frames that a method may choose from, and what it may judge them by.

    Attributes:
        features: as the model's own tower encodes them [G, n, d], in host memory.
        frames: the pixels uint8 [T, height, width, 3]; `None` where they were not kept.
        frames_per_grid: frames that share one grid; they stay together.
        question: what is asked.
        embed: embeddings [m, d] of a text's tokens, on the host.
        room: grids that fit the context beside the text; `None` = no limit.
        device: where the model is.
        memo: what has been computed from the video alone, kept for the next question.
        judges: other models that score frames, by path; loaded once and kept beside the model.
    """

    features: torch.Tensor
    frames: np.ndarray | None
    frames_per_grid: int
    question: str
    embed: Callable[[str], torch.Tensor]
    room: int | None
    device: torch.device
    memo: dict[Any, Any]
    judges: dict[str, Any]


@dataclass(frozen=True)
class Method:
    """Options of a method, and its stages. The fields of a subclass are the keys of its yaml in `conf/method/`.

    An instance holds no state: what a stage has to remember of a prompt belongs into `Prefill.state`.

    Attributes:
        version: raised by hand when the method's answers change on purpose; part of a cell's identity.
        default_positions: the position rule where none is set.
        sees_question: whether the question takes part in choosing what is encoded, passed on or kept.
        reusable: whether what is cached of the video can serve further questions.
        name: the file in `harness/compress/methods`, and the name in the tables.
        chunk_frames: frames prefilled together.
        positions: the rule for M-RoPE ids, one of `positions.RULES`; `None` = that of the method.
    """

    version: ClassVar[int] = 1
    default_positions: ClassVar[str] = "float"
    sees_question: ClassVar[bool] = False
    reusable: ClassVar[bool] = True

    name: str = "unnamed"
    chunk_frames: int = 32
    positions: str | None = None

    def __post_init__(self) -> None:
        for key in ("chunk_frames", "max_guide_length"):
            value = getattr(self, key, None)
            if value is not None and value < 1:
                raise UserError(f"method.{key}={value} is too small: use 1 or more")
        if self.positions is not None:
            check_rule(self.positions)
        check_settings(self, "method.")

    @property
    def position_rule(self) -> str:
        """The rule for M-RoPE ids."""
        return self.positions or self.default_positions

    @property
    def tracks_positions(self) -> bool:
        """Whether the cache has to keep the ids of its tokens."""
        return False

    @property
    def needs_frames(self) -> bool:
        """Whether `select_frames` looks at the pixels, so that they have to be kept."""
        return False

    @property
    def needs_attention(self) -> bool:
        """Whether tokens are chosen by what they got in the vision tower, so that it has to be kept."""
        return False

    @property
    def needs_features(self) -> bool:
        """Whether `select_frames` looks at what the tower makes of all frames, so that all count as encoded."""
        return True

    def for_family(self, family: str) -> Method:
        """This method as it runs on a model family.

        Raises:
            UserError: it does not exist there.
        """
        return self

    def settled(self, weights: str, words: Sequence[str] = ()) -> Method:
        """This method with what it takes from files filled in, as it enters the identity of a cell.

        Args:
            weights: digest of the model's files, or `unknown`.
            words: settings of the command line, for the command in a message.

        Raises:
            UserError: a file that is missing, or is not of these weights.
        """
        return self

    def compresses(self, prompt: Prompt) -> bool:
        """Whether anything is to be removed from this prompt."""
        return False

    def select_frames(self, candidates: Candidates) -> torch.Tensor | None:
        """Which frames to show, ascending, whole grids of them; `None` = all. Those are then encoded by themselves."""
        return None

    def prune(self, run: Prefill) -> Pruned | None:
        """Which of the video's tokens enter the language model; `None` = all.

        Of `run` there are the language model, the whole prompt, the video's features, `of_video` and the trace.
        """
        return None

    def cut(self, prompt: Prompt) -> list[int]:
        """Chunk lengths in video tokens [K]; they add up to V."""
        return whole_grids(prompt, self.chunk_frames)

    def segments(self, prompt: Prompt) -> list[Segment]:
        """What passes the model together, in order; the last one holds the last token of the prompt."""
        return prompt.segments(self.cut(prompt))

    def begin(self, run: Prefill) -> None:
        """Before the first segment: set `run.state`, decide budgets."""

    def feed(self, run: Prefill, segment: Segment) -> torch.Tensor | None:
        """Pass one segment; returns the last hidden state [d] of its last token where it ends the prompt."""
        return run.forward(segment)

    def before_question(self, run: Prefill) -> None:
        """All chunks are in the cache, the text behind the video is not: the last moment that can change its answer.

        Once the question is in the cache, the first new token has been decided by what was there.
        """

    def after_token(self, run: Prefill) -> None:
        """A new token has been decoded and cached."""

    def layer_ids(self, run: Prefill, ids: torch.Tensor, *, decoded: bool) -> list[torch.Tensor] | None:
        """Ids [r, n] by which each layer rotates a segment; `None` = `ids` in all of them."""
        return None

    def recorded_ids(self, run: Prefill, ids: list[torch.Tensor], index: int) -> list[torch.Tensor]:
        """Ids [r, n] per layer that the cache records of text; `index` is the first one's place in the whole."""
        return ids


@dataclass(frozen=True)
class WithQuirks(Method):
    """A method whose published code deviates from what is meant, or from an exact budget.

    Attributes:
        QUIRKS: which there are, and whether they are on where nothing is said; explained in the method's module.
        quirks: those that are switched.
    """

    QUIRKS: ClassVar[Mapping[str, bool]] = {}

    quirks: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_quirks(self.quirks, self.QUIRKS, f"method {self.name}")

    def has(self, quirk: str) -> bool:
        """Whether a quirk is on."""
        return {**self.QUIRKS, **self.quirks}[quirk]


def method_names() -> list[str]:
    """Names of all methods: the modules of `harness/compress/methods`."""
    from harness.compress import methods

    return sorted(module.name for module in pkgutil.iter_modules(methods.__path__))


def method_class(name: str) -> type[Method]:
    """The class `METHOD` of the module `harness.compress.methods.<name>`.

    Raises:
        UserError: there is no such module.
    """
    if name not in method_names():
        raise UserError(f"unknown method {name!r}: allowed are {', '.join(method_names())}; set method=adaretake")
    found: type[Method] = importlib.import_module(f"harness.compress.methods.{name}").METHOD
    return found


def build_method(name: str, **options: Any) -> Method:
    """A method by name and options.

    Raises:
        UserError: a name, an option or a value that does not exist.
    """
    cls = method_class(name)
    known = [field.name for field in dataclasses.fields(cls)]
    if unknown := sorted(set(options) - set(known)):
        raise UserError(f"method {name} has no option {', '.join(unknown)}: allowed are {', '.join(known)}")
    return cls(**{"name": name, **options})
