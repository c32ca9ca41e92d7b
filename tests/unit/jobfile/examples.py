"""A job file in which every field stands, with something else than its default."""

from __future__ import annotations

DIGEST = "ab" * 32
TOOL = f'{{ from = "artifact:{DIGEST}", to = "./bin/tool", size = 5, executable = true }}'
EVERYTHING = """
name = "nightly"
tenant = "physics"
deadline = "6h"
priority = 20
estimate = { cost = 12.5, storage = "2GiB", ingress = "10GB", egress = "1MB" }

[defaults]
retry = { limit = 2, delay = "1s" }
env = { A = "1", B = "2" }

[[step]]
name = "train"                      # stands before what it needs
needs = ["prep"]
when = "finished"
array = "0-98:2,100"
matrix = { lr = [0.1, 1e-3], opt = ["adam", "sgd"] }
command = ["python", "train.py", "--lr", "{lr}", "--opt={opt}", "{index}/{item}/{rank}/{nodes}", "{{lr}} ${HOME}"]
resources = [{ cpus = 8, gpus = 1.5, memory = "16GiB", named = { licence = 1 } }, { cpus = 0.5 }]
nodes = 2
pool = "gpu"
pools = ["spare"]
labels = { zone = "a" }
isolation = "sandbox"
min_score = 0.5
min_forecast = 0.8
time_limit = "6h"
expected_runtime = "1h30m"
grace = "30s"
env = { B = "{lr}", SEED = 7 }
directory = "/data/{opt}"
stdin = "{item}"
on_lost = "wait:20m"
overlap = "allow"
log_full = "block"
log_max = "1GB"
max_fails = 3
max_running = 10
runtime = "plain"
arrangement = "spread"
inputs = ["prep:part-{index}.parquet", { from = "prep:**/*.json", to = "notes/" }, @TOOL@]
checkpoint = { path = "./ckpt/", every = "10m", keep = 3, signal = "SIGUSR1", grace = "2m" }
stall_after = "15m"

[step.retry]
losses = 4
factor = 3
delay_max = "1h"
on = ["exit:75", "exit:1-9", "signal:SIGKILL", "timeout", "oom", "stalled", "output"]
never = ["start"]
elsewhere = true
verdict = "advise"

[[step]]
name = "prep"
shell = "cat < /dev/null | sort"
array = ["x", "y z", 3]
outputs = ["part-{index}.parquet", "./notes/"]
""".replace("@TOOL@", TOOL)
