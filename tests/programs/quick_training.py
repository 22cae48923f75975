"""A quick stand-in for gptsovits_train.py and rvc_train.py: the same arguments, stages, files and exit codes.

    quick_training.py --dataset DIR --work DIR --output DIR --model-id ID [--until STEP] [HABIT...]

HABIT: `exit=STAGE:CODE` ends with that code in a stage; `hang=STAGE` sleeps there; `unlike` publishes no reference, as
RVC does. How often each stage was done anew is counted in WORK/done.json.
"""

import json
import shutil
import sys
import time
import wave
from pathlib import Path

STAGES = {"check": ["check"], "prepare": ["slice", "transcribe", "features"], "train": ["train_sovits", "train_gpt"],
          "select": ["evaluate"], "publish": ["publish"]}  # fmt: skip


def main(argv: list[str]) -> int:
    options = {argv[at]: argv[at + 1] for at in range(len(argv) - 1) if argv[at].startswith("--")}
    habits = dict(word.split("=", 1) for word in argv if "=" in word)
    dataset, work, output = (Path(options[name]) for name in ("--dataset", "--work", "--output"))
    work.mkdir(exist_ok=True)
    state_file = work / "state.json"
    done = json.loads(state_file.read_text()) if state_file.exists() else {}
    names = [name for names in STAGES.values() for name in names]
    last = list(STAGES)[: list(STAGES).index(options.get("--until", "publish")) + 1]
    print("WARNING cpu It is a stand-in.", flush=True)
    for stage in [name for step in last for name in STAGES[step]]:
        print(f"PROGRESS {names.index(stage) / len(names):g} {stage}", flush=True)
        if stage in done:
            continue
        if habits.get("exit", "").startswith(f"{stage}:"):
            if stage == "check":
                (work / "report.json").write_text(json.dumps(report(dataset, problem=True)))
            if stage == "evaluate":
                (work / "evaluation.json").write_text(json.dumps([{"gpt_epoch": 15, "out": "it failed to speak"}]))
            print("the reason, with a path /opt/secret", file=sys.stderr)
            return int(habits["exit"].split(":")[1])
        if stage == "train_gpt":
            (work / "gpt.ckpt").write_bytes(b"gpt " * 1000)
        if habits.get("hang") == stage:
            time.sleep(600)
        if stage == "check":
            (work / "report.json").write_text(json.dumps(report(dataset)))
        if stage == "evaluate":
            # As upstream's lists do, it notes where something lies.
            done["reference"] = str(sorted(dataset.glob("*.wav"))[0])
        if stage == "publish":
            publish(Path(done["reference"]), work, output, options["--model-id"], "unlike" in argv)
        done[stage] = done.get(stage, 0) + 1
        state_file.write_text(json.dumps(done))
    return 0


def report(dataset: Path, problem: bool = False) -> dict:
    wavs = sorted(dataset.glob("*.wav"))
    return {
        "usable_seconds": 61.0, "clips": len(wavs), "speakers": 1, "language": "en",
        "problems": [{"code": "speakers", "message": "Two people speak.", "file": wavs[1].name}] if problem else [],
        "warnings": [], "dropped": [{"file": wavs[0].name, "start": 1.0, "end": 2.0, "reason": "noise"}],
    }  # fmt: skip


def publish(reference: Path, work: Path, output: Path, model_id: str, rvc: bool) -> None:
    part = output.with_name("part")
    part.mkdir()
    if rvc:
        (part / "model.pth").write_bytes(b"voice")
        (part / "model.index").write_bytes(b"index")
    else:
        (part / "sovits.pth").write_bytes(b"sovits")
        shutil.copyfile(work / "gpt.ckpt", part / "gpt.ckpt")
        with wave.open(str(reference)) as source, wave.open(str(part / "reference.wav"), "wb") as target:
            target.setparams(source.getparams())
            target.writeframes(source.readframes(8 * source.getframerate()))
        (part / "reference.txt").write_text("The birch canoe slid on the smooth planks.")
    table = [{"gpt_epoch": 0, "likeness": 0.5}, {"gpt_epoch": 15, "likeness": 0.8, "taken": True}]
    (part / "model.json").write_text(json.dumps({"model_id": model_id, "evaluation": table}))
    part.rename(output)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
