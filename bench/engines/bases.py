"""Makes the features of base voices that the package carries, so that no first request has to wait for them.

    python -m bench.engines.bases

Run it whenever a base voice, its calibration sentences or FEATURES_VERSION change: the files are named by all three,
and what is not in the package is made at the first request and kept in the cache folder.
"""

from __future__ import annotations

from voices.engines.builtin import base_voices


def main() -> None:
    kept = set()
    for language in base_voices.MODULES:
        module = base_voices.language_module(language)
        for name in dict.fromkeys([*module.NAMES, *module.SOURCES]):
            voice = module.load(name)
            path = base_voices.PRECOMPUTED / base_voices.base_file(voice)
            if not path.exists():
                base_voices.write_base(base_voices.make_base(voice), path)
                path.chmod(0o644)
            kept.add(path)
            print(f"{language} {name}: {path.name}, {path.stat().st_size / 1000:.0f} kB", flush=True)
    for path in set(base_voices.PRECOMPUTED.glob("base-*.npz")) - kept:
        path.unlink()


if __name__ == "__main__":
    main()
