"""The traffic of llm-d's policy ladder as a trace, and its figures from outcomes.

    python3 traffic.py > ladder.jsonl
    forerun simulate fleet.yaml --router precise.yaml --set step_time.decode=1.3 --set step_time.prefill=1.11 --outcomes precise.csv
    python3 traffic.py precise.csv

Published: 150 groups x 5 users, 6,000 shared and 1,200 own prompt tokens (each user asks the same again), 1,000 output
tokens; Poisson stages, each drained before the next (here: 600 s apart). Output tokens/s of a stage are those of its
requests over its length and drain.
"""
import csv
import json
import random
import sys

STAGES = [(15, 50), (3, 20), (10, 20), (15, 20), (20, 38), (22, 34), (25, 30), (30, 25), (35, 21), (40, 38), (43, 36),
          (46, 33), (49, 30), (52, 29), (55, 27), (57, 26), (60, 25)]
PAUSE_S = 600


def requests():
    rng = random.Random(1)
    users, asked, start = list(range(750)), 0, 0
    for stage, (rate, seconds) in enumerate(STAGES):
        for at in sorted(rng.uniform(0, seconds) for _ in range(rate * seconds)):
            user = users[asked % 750]
            asked += 1
            if asked % 750 == 0:
                rng.shuffle(users)
            blocks = [user // 5 * 100 + block for block in range(5)] + [1_000_000 + user]
            yield {"arrival_s": round(start + at, 6), "input_tokens": 7200, "output_tokens": 1000,
                   "block_hashes": blocks, "block_tokens": 1200, "tenant": str(stage)}
        start += seconds + PAUSE_S


def figures(path):
    start = 0
    rows = list(csv.DictReader(open(path)))
    for stage, (rate, seconds) in enumerate(STAGES):
        own = [row for row in rows if row["tenant"] == str(stage)]
        took = max(float(row["finished_s"]) for row in own) - start
        ttft = sum(float(row["ttft_ms"]) for row in own) / len(own) / 1000
        print(f"{rate:3} req/s  {len(own) * 1000 / took:7.0f} output tokens/s  TTFT mean {ttft:6.2f} s")
        start += seconds + PAUSE_S


if len(sys.argv) > 1:
    figures(sys.argv[1])
else:
    for request in requests():
        print(json.dumps(request))
