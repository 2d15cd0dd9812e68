"""The traffic of llm-d's published test of a CPU tier as a trace, and its figures from outcomes.

    python3 tiered.py > tiered.jsonl
    forerun simulate tiered.yaml --outcomes gpu.csv
    forerun simulate tiered.yaml --set tiers='{cpu: {capacity: 200GiB}}' --router tiered-cpu.yaml --outcomes cpu.csv
    python3 tiered.py gpu.csv

Published: 250 groups x 5 users, 16,000 shared and 256 own prompt tokens, 256 output tokens, at 5, 10, 20 and 40
requests/s. The lengths of the stages are not published; these are those that its token rates and times add up to.
Each stage is drained before the next.
"""
import csv
import json
import random
import sys

STAGES = [(5, 200), (10, 100), (20, 50), (40, 50)]
PAUSE_S = 600


def requests():
    rng = random.Random(1)
    users, asked, start = list(range(1250)), 0, 0
    rng.shuffle(users)
    for stage, (rate, seconds) in enumerate(STAGES):
        for at in sorted(rng.uniform(0, seconds) for _ in range(rate * seconds)):
            user = users[asked % 1250]
            asked += 1
            if asked % 1250 == 0:
                rng.shuffle(users)
            # 16,000 tokens are 125 blocks of 128; the question is two more.
            shared = [user // 5 * 1000 + block for block in range(125)]
            yield {"arrival_s": round(start + at, 6), "input_tokens": 16256, "output_tokens": 256,
                   "block_hashes": shared + [10_000_000 + 2 * user, 10_000_001 + 2 * user], "block_tokens": 128,
                   "tenant": str(stage)}
        start += seconds + PAUSE_S


def figures(path):
    start = 0
    rows = list(csv.DictReader(open(path)))
    for stage, (rate, seconds) in enumerate(STAGES):
        own = [row for row in rows if row["tenant"] == str(stage)]
        took = max(float(row["finished_s"]) for row in own) - start
        ttft = sorted(float(row["ttft_ms"]) / 1000 for row in own)
        e2e = sum(float(row["e2e_ms"]) for row in own) / len(own) / 1000
        mean, p90 = sum(ttft) / len(own), ttft[int(0.9 * len(own))]
        hit = sum(float(row["cached_tokens"]) for row in own) / len(own) / 16256
        print(f"{rate:3} req/s  TTFT mean {mean:6.2f} s p90 {p90:6.2f} s  E2E mean {e2e:6.2f} s  "
              f"{len(own) * 16512 / took:8.0f} tokens/s  hit {hit:.2f}")
        start += seconds + PAUSE_S


if len(sys.argv) > 1:
    figures(sys.argv[1])
else:
    for request in requests():
        print(json.dumps(request))
