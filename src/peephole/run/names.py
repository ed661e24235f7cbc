"""What the files of a run folder are called."""

CONFIG, ABOUT = "config.yaml", "run.json"
EVENTS, METRICS = "metrics.jsonl", "metrics.json"
MODEL_CONFIG, WEIGHTS = "model/config.json", "model/model.safetensors"
FIGURES, REPORT = "figures", "report.html"
CHECKPOINTS, LOCK = "checkpoints", ".lock"
BOARD, PROFILE = "tensorboard", "profile"

# What a run has from its start, and what it has when it is finished.
STARTED = (CONFIG, ABOUT)
FILES = (*STARTED, METRICS, EVENTS, MODEL_CONFIG, WEIGHTS)
# All that a run may have; a folder with anything else is never overwritten.
ALL = (*FILES, FIGURES, REPORT, CHECKPOINTS, LOCK, BOARD, PROFILE)

# Seconds of work for the YAML reader, at the worst.
MAX_CONFIG_BYTES = 1 << 18
MAX_TEXT_BYTES = 1 << 26
MAX_WEIGHT_BYTES = 1 << 36
