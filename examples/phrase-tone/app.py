"""Ask the shipped model for the tone of a phrase: python app.py --phrase "cricket is a wonderful sport!"

Needs nothing but ``onnxruntime-genai`` and the model folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

PROMPT = "### Text: {phrase}\n### The tone is:\n"
LONGEST_ANSWER = 6


def tone_of(phrase: str, model_path: Path) -> str:
    """Return the model's word for the tone of ``phrase``."""
    import onnxruntime_genai as og

    model = og.Model(str(model_path))
    tokenizer = og.Tokenizer(model)
    # Training texts begin with the BOS token, so the prompt does too.
    prompt = [tokenizer.bos_token_id, *tokenizer.encode(PROMPT.format(phrase=phrase))]

    params = og.GeneratorParams(model)
    params.set_search_options(do_sample=False, max_length=len(prompt) + LONGEST_ANSWER)
    generator = og.Generator(model, params)
    generator.append_tokens(prompt)

    answer: list[int] = []
    while not generator.is_done():
        generator.generate_next_token()
        answer.append(int(generator.get_next_tokens()[0]))
    return " ".join(tokenizer.decode([token for token in answer if token not in tokenizer.eos_token_ids]).split())


def main() -> int:
    parser = argparse.ArgumentParser(description="Say whether a phrase is Sad, Joy, Fear or Surprise.")
    parser.add_argument("--phrase", required=True)
    parser.add_argument("--model-path", type=Path, default=Path("models/phrase-tone"))
    arguments = parser.parse_args()
    if not (arguments.model_path / "genai_config.json").is_file():
        print(
            f"There is no ONNX Runtime GenAI model in {arguments.model_path}. "
            "Make one with `olivine run --config olive-config.json`, or name its folder with --model-path.",
            file=sys.stderr,
        )
        return 2
    print(tone_of(arguments.phrase, arguments.model_path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
