"""Control: attention sinks and the most recent tokens (StreamingLLM, arXiv 2309.17453, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.compress.evict import ChunkEvictor, video_budget
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.late import torch
from harness.settings.rules import setting


@dataclass(frozen=True)
class Streaming(ChunkEvictor):
    """Rolls: behind every chunk only the sinks, the text and the last tokens of the video that fit stay in any layer.

    `Prefill.state` holds which of the prompt's tokens are cached [m]. Tokens keep their ids; the original counts ids
    within its window, because its videos of text have no end.

    Attributes:
        sinks: tokens at the start of the prompt that always stay. The text in front of the video comes first, and
            stays anyway: more than it has are tokens of the video.
    """

    sees_question: ClassVar[bool] = False
    reusable: ClassVar[bool] = True
    uses_guide: ClassVar[bool] = False

    sinks: int = setting(4, least=0)

    def begin(self, run: Prefill) -> None:
        super().begin(run)
        run.state = torch.arange(run.prompt.video_start)

    def budgets(self, run: Prefill, lengths: Sequence[int]) -> list[int]:
        """What is left of each chunk in the end."""
        stays = torch.zeros(run.prompt.n_video, dtype=torch.long)
        stays[self.window(run, run.prompt.n_video)] = 1
        return [int(part.sum()) for part in stays.split(list(lengths))]

    def window(self, run: Prefill, seen: int) -> torch.Tensor:
        """Which of the video's first `seen` tokens are cached then: sinks and the last ones [k]."""
        budget = video_budget(run.prompt)
        first = min(max(0, self.sinks - run.prompt.video_start), budget)
        if seen <= budget:
            return torch.arange(seen)
        return torch.cat((torch.arange(first), torch.arange(seen - (budget - first), seen)))

    def feed(self, run: Prefill, segment: Segment) -> torch.Tensor | None:
        if not run.compress or segment.chunk is None:
            return super().feed(run, segment)
        run.forward(segment)
        cached = torch.cat((run.state, torch.arange(segment.tokens.start, segment.tokens.stop)))
        stays = torch.ones(run.prompt.n_prompt, dtype=torch.bool)
        stays[run.prompt.video] = False
        stays[run.prompt.video[self.window(run, segment.video.stop)]] = True
        kept = stays[cached].nonzero().flatten()
        run.state = cached[kept]
        for layer in range(run.cache.num_layers):
            run.cache.keep_of_last(layer, len(cached), kept)
        own = int((self.window(run, segment.video.stop) >= segment.video.start).sum())
        run.trace.kept.append([own] * run.cache.num_layers)
        run.note_choice([run.state])
        run.record_kept([self.window(run, segment.video.stop)])
        return None


METHOD = Streaming
