"""What the peers make of the job of `haar bench signals`: R peaks of first leads, one thread, one JSON object.

    python3 signals.py --data DIR [--xqrs-records N] [--hrv-windows N]

NeuroKit2's Pan-Tompkins (its cleaning and its peaks) on all records, the fastest of three rounds; wfdb's XQRS,
which is slow, on the first N records, once; NeuroKit2's heart-rate variability in time and frequency (Welch) on N
windows of five minutes. Needs `pip install neurokit2 wfdb`.
"""

import argparse
import glob
import json
import os
import sys
import time
import warnings

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")
warnings.filterwarnings("ignore")

try:
    import neurokit2 as nk
    import numpy as np
    import wfdb
    import wfdb.processing
except ImportError as error:
    sys.exit(f"{error}; run: {sys.executable} -m pip install neurokit2 wfdb")


def read_leads(data):
    if os.path.isdir(data):
        names = sorted(name[:-4] for name in glob.glob(f"{data}/*.hea"))
    else:
        names = [os.path.splitext(data)[0]]
    leads = []
    for name in names:
        record = wfdb.rdrecord(name, channels=[0])
        leads.append((np.nan_to_num(record.p_signal[:, 0]), int(record.fs)))
    if not leads:
        sys.exit(f"no record in {data}")
    return leads


def pan_tompkins(mv, rate_hz):
    clean = nk.ecg_clean(mv, sampling_rate=rate_hz, method="pantompkins1985")
    nk.ecg_findpeaks(clean, sampling_rate=rate_hz, method="pantompkins1985")


def xqrs(mv, rate_hz):
    wfdb.processing.XQRS(sig=mv, fs=rate_hz).detect(verbose=False)


def samples_per_s(job, leads, rounds):
    shortest = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        for mv, rate_hz in leads:
            job(mv, rate_hz)
        shortest = min(shortest, time.perf_counter() - begin)
    return sum(len(mv) for mv, _ in leads) / shortest


def hrv_windows_per_s(windows):
    """Beats at 250 Hz: the same waves in the intervals as in `haar bench signals`."""
    peaks, at_s = [], 0.5
    while at_s < 300:
        peaks.append(round(at_s * 250))
        waves = 0.03 * np.sin(2 * np.pi * 0.25 * at_s) + 0.02 * np.sin(2 * np.pi * 0.1 * at_s)
        at_s += 0.8 * (1 + waves)
    begin = time.perf_counter()
    for _ in range(windows):
        nk.hrv_time(peaks, sampling_rate=250)
        nk.hrv_frequency(peaks, sampling_rate=250, psd_method="welch", normalize=False)
    return windows / (time.perf_counter() - begin)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--xqrs-records", type=int, default=2)
    parser.add_argument("--hrv-windows", type=int, default=20)
    args = parser.parse_args()
    leads = read_leads(args.data)
    print(json.dumps({
        f"neurokit2 {nk.__version__} pantompkins1985 samples_per_s": samples_per_s(pan_tompkins, leads, 3),
        f"wfdb {wfdb.__version__} XQRS samples_per_s": samples_per_s(xqrs, leads[:args.xqrs_records], 1),
        f"neurokit2 {nk.__version__} hrv_windows_per_s": hrv_windows_per_s(args.hrv_windows),
    }))


main()
