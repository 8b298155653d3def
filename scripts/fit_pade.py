#!/usr/bin/env python3
"""Fits Padé activation units in their safe form to leaky ReLU (slope 0.01) on [-3, 3].

F(x) = (n0 + n1 x + ... + nm x^m) / (1 + |d0||x| + ... + |d_{n-1}||x|^n), least squares over 6001 evenly spaced points by
Levenberg-Marquardt from fixed random starts; the best fit is kept. Prints the coefficients as the constants of
src/ops/activation/mod.rs. Needs numpy only:

    python3 scripts/fit_pade.py   (about a minute)
"""

import numpy as np

ORDERS = [(3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8)]
STARTS, STEPS = 40, 400
# A denominator coefficient of exactly zero has no gradient: none starts below this.
FLOOR = 1e-6

x = np.linspace(-3.0, 3.0, 6001)
target = np.where(x > 0, x, 0.01 * x)
a = np.abs(x)


def numerator_for(m, q):
    """The best numerator for a given denominator: a linear problem."""
    basis = x[:, None] ** np.arange(m + 1) / q[:, None]
    return np.linalg.lstsq(basis, target, rcond=None)[0]


def fit(m, n, rng):
    """Levenberg-Marquardt on (numerator, square roots of the denominator's magnitudes)."""
    powers, denominators = x[:, None] ** np.arange(m + 1), a[:, None] ** np.arange(1, n + 1)
    roots = np.sqrt(rng.exponential(1.0, n))
    p = np.concatenate([numerator_for(m, 1 + denominators @ roots**2), roots])

    def residual(p):
        q = 1 + denominators @ p[m + 1 :] ** 2
        return powers @ p[: m + 1] / q - target, q

    damping, (r, q) = 1e-3, residual(p)
    for _ in range(STEPS):
        y = r + target
        jacobian = np.hstack([powers / q[:, None], -(y / q)[:, None] * denominators * 2 * p[m + 1 :]])
        normal, slope = jacobian.T @ jacobian, jacobian.T @ r
        step = np.linalg.lstsq(normal + damping * np.diag(np.diag(normal) + 1e-12), -slope, rcond=None)[0]
        trial, trial_q = residual(p + step)
        if trial @ trial < r @ r:
            p, r, q, damping = p + step, trial, trial_q, damping / 3
        else:
            damping = min(damping * 4, 1e8)
    return r @ r, p[: m + 1], p[m + 1 :] ** 2


def main():
    for m, n in ORDERS:
        rng = np.random.default_rng(17)
        loss, numerator, denominator = min((fit(m, n, rng) for _ in range(STARTS)), key=lambda result: result[0])
        rms = np.sqrt(loss / len(x))
        show = lambda values: ", ".join(f"{np.float32(v):.7e}" for v in values)
        print(f"    // rms error {rms:.1e}")
        print(f"    (({m}, {n}), (&[{show(numerator)}], &[{show(np.maximum(denominator, FLOOR))}])),")


if __name__ == "__main__":
    main()
