"""Convert LLaVA-Video weights as their authors published them to a Hugging Face LLaVA-OneVision folder.

    hf download lmms-lab/LLaVA-Video-7B-Qwen2
    python scripts/convert_llava_video.py lmms-lab/LLaVA-Video-7B-Qwen2 models/LLaVA-Video-7B-Qwen2-hf

Needs disk space for a second copy of the weights and memory for two output shards. Strict: a tensor that is missing,
unknown or of another shape stops the conversion and is listed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.errors import UserError


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder of the original checkpoint, or a hub id that is in the local cache")
    parser.add_argument("output", type=Path, help="folder to make; it must not exist yet")
    parser.add_argument(
        "--processor",
        metavar="FOLDER|ID",
        help="take processor and tokenizer from this LLaVA-OneVision model, as the AdaReTaKe release did with "
        "llava-hf/llava-onevision-qwen2-7b-ov-hf (default: built from the checkpoint's own tokenizer, with the "
        "conversation format that LLaVA-Video was trained on)",
    )
    parser.add_argument(
        "--text-config", type=Path, metavar="FILE", help="config.json of the language model (default: the source's own)"
    )
    parser.add_argument(
        "--vision-config", type=Path, metavar="FILE", help="JSON with SigLIP fields that differ from so400m-patch14-384"
    )
    parser.add_argument(
        "--shard-gb", type=float, default=2.0, metavar="GB", help="size of an output shard (default: 2)"
    )
    args = parser.parse_args(argv)
    if not args.shard_gb > 0:
        parser.error(f"--shard-gb {args.shard_gb:g} must be above 0")
    return args


def find(path: str) -> Path:
    """A folder, or the cached copy of a hub id; nothing is downloaded."""
    if Path(path).is_dir():
        return Path(path)
    if path.count("/") == 1 and not path.startswith((".", "/")):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(path, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            raise UserError(
                f"{path} is neither a folder nor in the local hub cache; get it: hf download {path}"
            ) from None
    raise UserError(f"{path} does not exist; give a folder, or a hub id such as lmms-lab/LLaVA-Video-7B-Qwen2")


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        from harness.models.convert.llava_video import convert, read_config

        convert(
            find(args.source),
            args.output,
            processor=find(args.processor) if args.processor else None,
            text=read_config(args.text_config) if args.text_config else None,
            vision=read_config(args.vision_config) if args.vision_config else None,
            shard_bytes=int(args.shard_gb * 1e9),
            report=lambda line: print(line, flush=True),
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command starts again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
