"""Records of benchmark suites, made up, as the tests of the pages about speed read them."""

CPU = {"gpu": None, "cpu": "AVX512", "threads": 2, "torch": "2.13.0+cpu"}
GPU = {"gpu": "NVIDIA H200", "cpu": "AVX512", "threads": 16, "torch": "2.13.0+cu130"}


def step(machine: dict, ours_s: float) -> dict:
    rows = [
        {"contender": name, "median_s": s, "quartiles_s": [0.9 * s, 1.25 * s], "images_per_s": 64 / s}
        for name, s in (("plain eager fp32", 2.0), ("fastvae bf16", ours_s))
    ]
    return {"machine": machine, "settings": {"width": 32, "batch": 64}, "rows": rows}


def latency(contender: str, verb: str, batch: int, median_ms: float) -> dict:
    return {
        "contender": contender,
        "verb": verb,
        "batch": batch,
        "host_copies": False,
        "median_ms": median_ms,
        "p99_ms": 2 * median_ms,
    }


INFERENCE = {
    "machine": GPU,
    "rows": [
        latency("plain eager fp32", "reconstruct", 1, 1.0),
        latency("fastvae captured bf16", "reconstruct", 1, 0.1234),
        latency("plain eager fp32", "encode", 1, 1.0),
        latency("fastvae captured bf16", "encode", 1, 0.25),
    ],
}
ONLY_OURS = step(GPU, 0.5) | {"rows": step(GPU, 0.5)["rows"][1:]}
LOADER = {
    "machine": GPU,
    "rows": [{"contender": "fastvae: packed", "images_per_s": 12345.6, "quartiles_images_per_s": [12000.0, 13000.0]}],
}
PAPER = {"machine": GPU, "rows": [{}], "verdicts": [{"line": "train <= 10 h: PASS, 0.02 h"}]}
KERNELS = {
    "machine": CPU,
    "rows": [
        {"op": "replicate_conv2d", "case": case, "work": "forward", "dtype": "float32", "contender": c, "median_us": us}
        for case, ours in (("8x8 up2 b8", 50.0), ("9x9 up2 b8", 200.0), ("8x8 b8", 80.0))
        for c, us in (("padded", 120.0), ("padded, compiled", 100.0), ("fastvae", ours), ("fastvae, compiled", 999.0))
    ],
}
LOADERS = {
    "machine": CPU,
    "rows": [
        {"contender": name, "images_per_s": rate, "quartiles_images_per_s": [rate - 100, rate + 100]}
        for name, rate in {
            "torch DataLoader + Pillow": 1000.0,
            "fastvae: Pillow": 900.0,
            "fastvae: DALI on the CPU": 1500.0,
            "fastvae: packed": 99999.0,
            "fastvae: resident": 99999.0,
        }.items()
    ],
}
LOSSNET = {
    "machine": CPU,
    "rows": [
        {
            "case": "8 pairs of 64x64",
            "work": "features, loss and gradient",
            "dtype": "float32",
            "contender": name,
            "median_us": us,
            "quartiles_us": [us - 500, us + 500],
        }
        for name, us in {"two calls": 4000.0, "two calls, compiled": 3000.0, "fastvae": 2000.0}.items()
    ],
}
SOAK = {
    "machine": CPU,
    "settings": {"width": 32},
    "rows": [{"calls": 10}],
    "verdicts": [{"line": "memory grown over 10 calls <= 4 MiB: PASS, 0 MiB"}],
}
ACCELERATE = {
    "machine": CPU,
    "rows": [
        {
            "contender": name,
            "batch": batch,
            "median_ms": ms,
            "quartiles_ms": [0.8 * ms, 1.2 * ms],
            "p99_ms": 2 * ms if batch == 1 else None,
        }
        for name, by_batch in {
            "plain eager": {1: 9.0, 64: 300.0},
            "exported file, onnxruntime": {1: 5.0, 64: 240.0},
            "fastvae accelerate": {1: 2.5, 64: 120.0},
            "exported file, OpenVINO bf16": {1: 2.0},
            "fastvae accelerate bf16": {1: 1.6, 64: 60.0},
            "folded eager": {1: 1.0},
        }.items()
        for batch, ms in by_batch.items()
    ],
    "verdicts": [{"line": "reconstruct 1 image, ms <= 2: FAIL, 2.5"}],
}


def named(day: int, rest: str) -> str:
    return f"2026_01_{day:02}_{rest}"
