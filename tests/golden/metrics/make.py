"""Writes expected.json: scores of small random pictures by scikit-image, SciPy and NumPy.

    python make.py            (scikit-image 0.26, SciPy 1.17, NumPy 2.4, PyTorch)

Pictures are not stored: both sides make them from the same congruential generator.
"""

import json
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import center_of_mass, distance_transform_edt, label
from scipy.optimize import linear_sum_assignment
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def noise(seed, count):
    """Bytes of a linear congruential generator."""
    state, out = seed, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append(state >> 56)
    return np.array(out, dtype=np.uint8)


def picture(seed, h, w):
    return noise(seed, h * w * 3).reshape(h, w, 3)


def mixed(a, b):
    return ((3 * a.astype(int) + b.astype(int)) // 4).astype(np.uint8)


def luma(image):
    return image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def image_case(seed, h, w):
    a = picture(seed, h, w)
    b = mixed(a, picture(seed + 1000, h, w))
    d = (a.astype(float) - b) / 255
    return {
        "seed": seed, "size": [h, w],
        "psnr": peak_signal_noise_ratio(a, b, data_range=255),
        "ssim": structural_similarity(a, b, data_range=255, channel_axis=2),
        "mse": float((d**2).mean()), "mae": float(np.abs(d).mean()),
    }


def edge_case(seed, h, w, tolerance):
    # Sparse lines: a pixel is drawn where its noise is high.
    target = noise(seed, h * w).reshape(h, w) >= 250
    drawn = noise(seed + 1000, h * w).reshape(h, w) >= 245
    reach = max(tolerance * np.hypot(w, h), 1.0)
    near = lambda a, b: int((a & (distance_transform_edt(~b) <= reach)).sum())
    right, found = near(drawn, target), near(target, drawn)
    p, r = right / drawn.sum(), found / target.sum()
    return {
        "seed": seed, "size": [h, w], "tolerance": tolerance,
        "ods_precision": 100 * p, "ods_recall": 100 * r, "ods_f": 100 * 2 * p * r / (p + r),
    }


def f_measure(p, r):
    return 2 * p * r / (p + r) if p + r else 0.0


def edge_set_case(images, tolerance, thresholds):
    """ODS and OIS from the counts of several images, as `collect_eval_bdry` of BSDS500 sums them."""

    def counts(seed, h, w, least, threshold):
        target = noise(seed, h * w).reshape(h, w) >= least
        faint = noise(seed + 1000, h * w).reshape(h, w)
        drawn = (faint >= 230) & (faint >= threshold)
        reach = max(tolerance * np.hypot(w, h), 1.0)
        near = lambda a, b: int((a & (distance_transform_edt(~b) <= reach)).sum()) if b.any() else 0
        return np.array([near(drawn, target), drawn.sum(), near(target, drawn), target.sum()])

    def measures(c):
        p, r = c[0] / (c[1] + (c[1] == 0)), c[2] / (c[3] + (c[3] == 0))
        return 100 * f_measure(p, r), 100 * p, 100 * r

    table = np.array([[counts(*image, t) for t in thresholds] for image in images])
    of_all = [measures(c) for c in table.sum(0)]
    at = int(np.argmax([m[0] for m in of_all]))
    best = [row[int(np.argmax([measures(c)[0] for c in row]))] for row in table]
    return {
        "images": [{"seed": s, "size": [h, w], "least": l} for s, h, w, l in images],
        "tolerance": tolerance, "thresholds": thresholds,
        "ods_f": of_all[at][0], "ods_precision": of_all[at][1], "ods_recall": of_all[at][2],
        "ods_threshold": float(thresholds[at]), "ois_f": measures(np.sum(best, 0))[0],
    }


def iou_case(seed, h, w):
    a = luma(picture(seed, h, w)) >= 127.5
    b = noise(seed + 1000, h * w).reshape(h, w) >= 128
    return {"seed": seed, "size": [h, w], "miou": 100 * float((a & b).sum() / (a | b).sum())}


def pooled_case(images):
    """The mean over images, and intersection and union summed over them."""
    both, either = [], []
    for seed, h, w, least in images:
        a, b = luma(picture(seed, h, w)) >= 127.5, noise(seed + 1000, h * w).reshape(h, w) >= least
        both.append((a & b).sum())
        either.append((a | b).sum())
    return {
        "images": [{"seed": s, "size": [h, w], "least": l} for s, h, w, l in images],
        "miou": 100 * float(np.mean(np.array(both) / either)),
        "pooled_iou": 100 * float(np.sum(both) / np.sum(either)),
    }


COLORS = np.array([[255, 0, 0], [0, 128, 64], [90, 90, 200], [250, 240, 30]])


def scene_case(images, unlabelled):
    """Scores from confusion matrices: rows true labels, columns predicted ones, 0 is none."""
    table = np.vstack([[0, 0, 0], COLORS])

    def confusion(seed, h, w):
        truth = noise(seed, h * w).reshape(h, w) % 5
        mixed = table[truth] // 2 + picture(seed + 1000, h, w) // 2
        found = ((mixed[:, :, None] - table) ** 2).sum(3).argmin(2)
        if unlabelled == "ignore":
            truth, found = truth[truth > 0], found[truth > 0]
        return np.bincount(5 * truth.ravel() + found.ravel(), minlength=25).reshape(5, 5)

    def ious(matrix):
        rows, columns, same = matrix.sum(1), matrix.sum(0), matrix.diagonal()
        return (same / np.maximum(rows + columns - same, 1))[rows > 0]

    each = [confusion(*image) for image in images]
    total = np.sum(each, 0)
    return {
        "images": [{"seed": s, "size": [h, w]} for s, h, w in images],
        "colors": COLORS.tolist(), "unlabelled": unlabelled,
        "scene_miou": 100 * float(ious(total).mean()),
        "image_miou": 100 * float(np.mean([ious(matrix).mean() for matrix in each])),
        "pixel_accuracy": 100 * float(total.trace() / total.sum()),
    }


def symbol(kind, side):
    """The shapes and colours that stand for the classes."""
    at = (2 * np.arange(side) + 1) / side - 1
    x, y = at[None, :], at[:, None]
    ax, ay, radius = np.abs(x), np.abs(y), np.hypot(x, y)
    least, most = np.minimum(ax, ay), np.maximum(ax, ay)
    shape = [
        radius < 0.8,
        most < 0.5,
        (y >= -0.7) & (y < 0.75) & (ax < 0.5 * (y + 0.75)),
        (least < 0.28) & (most < 0.8),
        (radius >= 0.45) & (radius < 0.85),
        (ax + ay >= 0.4) & (ax + ay < 0.85),
        (ay < 0.8) & (np.mod(y + 1, 0.8) < 0.4) & (x < 2),
    ][kind]
    color = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255], [255] * 3][kind]
    return shape[:, :, None] * np.array(color)


def symbol_case(seeds, cells, classes):
    """Grids whose cells are a fifth of a symbol, all else blocks of noise, read by the nearest symbol."""
    symbols = np.array([symbol(kind, 16) for kind in range(classes)])
    matrix, shifted_right = np.zeros((classes, classes), int), 0
    for seed in seeds:
        truth = noise(seed, cells * cells) % classes
        noisy = blocks(seed + 1000, 16 * cells, 16 * cells).reshape(cells, 16, cells, 16, 3).swapaxes(1, 2)
        patches = np.minimum((symbols[truth] + 4 * noisy.reshape(-1, 16, 16, 3).astype(int)) // 5 + 40, 255)

        def read(shift):
            return ((patches[:, None] + shift - symbols[None]) ** 2).sum((2, 3, 4)).argmin(1)

        found = read(np.zeros(3))
        shift = (symbols[found] - patches).mean((0, 1, 2))
        shifted_right += int((read(shift) == truth).sum())
        np.add.at(matrix, (truth, found), 1)
    rows = matrix.sum(1)
    return {
        "seeds": seeds, "cells": cells, "classes": classes, "confusion": matrix.astype(float).tolist(),
        "accuracy": 100 * matrix.trace() / matrix.sum(), "shift_accuracy": 100 * shifted_right / matrix.sum(),
        "recall": 100 * float((matrix.diagonal()[rows > 0] / rows[rows > 0]).mean()),
    }


def depth_case(seed, count, align):
    found = 0.5 + noise(seed, count) / 40
    truth = 0.5 + noise(seed + 1000, count) / 60
    if align:
        found = found * (np.median(truth) / np.median(found))
    ratio = np.maximum(found / truth, truth / found)
    return {
        "seed": seed, "count": count, "align": "median" if align else "none",
        "abs_rel": float((np.abs(found - truth) / truth).mean()),
        "rmse": float(np.sqrt(((found - truth) ** 2).mean())),
        **{f"delta_{k}": 100 * float((ratio < 1.25**k).mean()) for k in (1, 2, 3)},
    }


def blocks(seed, h, w):
    """A picture of squares of four pixels, dark ones between them."""
    return picture(seed, h // 4, w // 4).repeat(4, 0).repeat(4, 1)


def parts(image):
    """Centroids of the components of head, arms, legs and torso."""
    channels = image.astype(int)
    value, least = channels.max(2), channels.min(2)
    head = least >= 0.5 * value
    brightest = channels.argmax(2)  # ties: red, green, blue
    smallest = max(5 * image.shape[0] * image.shape[1] / (480 * 720), 1)
    for mask in [head, *(~head & (brightest == k) for k in range(3))]:
        labels, count = label(mask & (value >= 64), structure=np.ones((3, 3)))
        areas = np.bincount(labels.ravel(), minlength=count + 1)
        kept = [k for k in range(1, count + 1) if areas[k] >= smallest]
        yield np.array(center_of_mass(mask, labels, kept)).reshape(-1, 2)


def pose_case(seed, h, w, persons):
    found, wanted = blocks(seed, h, w), blocks(seed + 1000, h, w)
    # x, y and whether it is labelled, for 17 keypoints.
    points = (noise(seed + 2000, persons * 51).reshape(persons, 17, 3) // [16, 16, 128]).astype(float)
    sizes = []
    for person in points:
        head = [point[:2] for point in person[:5] if point[2] > 0]
        pairs = [np.hypot(*(a - b)) for i, a in enumerate(head) for b in head[:i]]
        sizes += [np.mean(pairs)] if pairs else []
    scale = max(h / 480, w / 720)
    threshold = 1.5 * (np.mean(sizes) if sizes else 20 * scale)
    matched, predicted, total = 0, 0, 0
    for a, b in zip(parts(found), parts(wanted)):
        predicted, total = predicted + len(a), total + len(b)
        if len(a) and len(b):
            distance = np.linalg.norm(a[:, None] - b[None], axis=2)
            cost = np.where(distance < threshold, distance, 1e9)
            matched += int((cost[linear_sum_assignment(cost)] < 1e9).sum())
    return {
        "seed": seed, "size": [h, w], "persons": persons, "threshold": threshold,
        "matched": matched, "predicted": predicted, "wanted": total,
        "match_rate": 100 * matched / total, "precision": 100 * matched / predicted,
        "f1": 200 * matched / (predicted + total),
    }


def bootstrap_case(count, samples, level, seed):
    values = noise(7, count).astype(float)
    generator = torch.Generator("cpu").manual_seed(seed)
    means = [
        values[torch.randint(count, (count,), generator=generator).numpy()].mean()
        for _ in range(samples)
    ]
    tail = 50 * (1 - level)
    low, high = np.percentile(means, [tail, 100 - tail])
    return {"count": count, "samples": samples, "level": level, "seed": seed, "interval": [low, high]}


cases = {
    "image": [image_case(s, h, w) for s, h, w in [(1, 16, 20), (2, 7, 7), (3, 33, 12), (4, 64, 64)]],
    "edges": [edge_case(s, h, w, t) for s, h, w, t in [(5, 32, 40, 0.0075), (6, 64, 48, 0.03), (7, 50, 50, 0.05)]],
    "edge_sets": [
        # The second and third image have their best thresholds elsewhere; the last target has no lines.
        edge_set_case([(40, 32, 40, 240), (41, 64, 48, 254), (42, 24, 24, 252)], 0.01, [230, 240, 250]),
        edge_set_case([(43, 20, 20, 230), (44, 40, 64, 253), (45, 16, 16, 256)], 0.03, [232, 239, 246, 253]),
    ],
    "miou": [iou_case(s, h, w) for s, h, w in [(8, 16, 16), (9, 31, 17)]],
    "pooled": [
        pooled_case([(50, 8, 8, 250), (51, 40, 30, 128), (52, 17, 60, 40)]),
        pooled_case([(53, 12, 12, 128)]),
    ],
    "scene": [scene_case([(54, 20, 30), (55, 9, 9), (56, 41, 12)], u) for u in ("class", "ignore")],
    "symbols": [symbol_case([57, 58, 59], 4, 7), symbol_case([60], 6, 5)],
    "depth": [depth_case(s, n, a) for s, n, a in [(10, 100, False), (11, 101, True), (12, 500, True)]],
    "pose": [pose_case(s, h, w, n) for s, h, w, n in [(20, 32, 40, 1), (21, 64, 48, 2), (22, 64, 96, 0), (23, 80, 80, 3)]],
    "bootstrap": [bootstrap_case(n, m, l, s) for n, m, l, s in [(10, 200, 0.95, 0), (37, 300, 0.9, 5)]],
}
Path(__file__).with_name("expected.json").write_text(json.dumps(cases, indent=1) + "\n")
