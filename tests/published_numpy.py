"""The published experiments' program: plain NumPy, one statement per line of the rule.

Written from the rule's description alone, to be compared with skajax's ``Published``.
"""

import numpy as np


def published(weights, x, dt, passes, dtype=np.float64):
    """K forward passes k = 0..K-1; returns the K-1 recorded rows and the weights at the end.

    ``weights`` is a list of (W, b). A row holds t and the observables, one value a layer.
    """
    ln2 = dtype(np.log(2.0))
    dt = dtype(dt)
    x = x.astype(dtype)
    B = dtype(len(x))
    W = [w.astype(dtype) for w, _ in weights]
    b = [c.astype(dtype) for _, c in weights]
    layers = range(len(W))
    Z_prev = D_prev = None
    net = {"published": np.zeros(len(W), dtype), "equation": np.zeros(len(W), dtype)}
    lost = np.zeros(len(W), dtype)
    rows = []
    for k in range(passes):
        Z, D = [], []
        inputs = x
        for l in layers:  # noqa: E741
            Z.append(inputs @ W[l] + b[l])
            D.append(1 / (1 + np.exp(-Z[l])))
            inputs = D[l]
        if k > 0:
            row = {
                "t": (k - 1) * dt,
                "weights": [(w.copy(), c.copy()) for w, c in zip(W, b, strict=True)],
            }
            row["output_mean"] = D[-1].mean(axis=0)
            gradients = []
            for l in layers:  # noqa: E741
                slope = D[l] * (1 - D[l])
                delta_D = D[l] - D_prev[l]
                delta_Z = Z[l] - Z_prev[l]
                entropy = -(D[l] * np.log2(D[l]) + (1 - D[l]) * np.log2(1 - D[l]))
                lengths = np.linalg.norm(Z[l]) * np.linalg.norm(delta_D)
                net_published = np.sum((D[l] - Z[l] * slope / ln2) * delta_Z)
                net_equation = np.sum((D[l] + Z[l] * slope / ln2) * delta_Z)
                net["published"][l] += net_published
                net["equation"][l] += net_equation
                entropy_rate = -np.sum(Z[l] * delta_D) / ln2 / dt
                for name, value in {
                    "entropy": np.sum(entropy),
                    "energy": np.sum(entropy),
                    "entropy_rate": entropy_rate,
                    "dissipation": lost[l],
                    "transport": entropy_rate + lost[l],
                    "alignment": np.sum(Z[l] * delta_D) / lengths if lengths > 0 else dtype(0),
                    "knowledge_norm": np.linalg.norm(Z[l]),
                    "flow_norm": np.linalg.norm(delta_Z) / dt,
                    "weight_norm": np.linalg.norm(W[l]),
                    "tensor_net_rate": net_published / dt,
                    "tensor_net": net["published"][l],
                    "tensor_net_rate_equation": net_equation / dt,
                    "tensor_net_equation": net["equation"][l],
                    "lagrangian": -np.sum(Z[l] * slope * delta_Z) / dt,
                }.items():
                    row.setdefault(name, []).append(value)
                gradients.append(-(Z[l] * slope + delta_D) / ln2)
            for l in layers:  # noqa: E741
                below = x if l == 0 else D_prev[l - 1]
                gradient_W = below.T @ gradients[l] / B
                gradient_b = gradients[l].mean(axis=0)
                lost[l] = B * (np.sum(gradient_W**2) + np.sum(gradient_b**2))
                W[l] = W[l] - dt * gradient_W
                b[l] = b[l] - dt * gradient_b
            rows.append(row)
        Z_prev, D_prev = Z, D
    return rows, list(zip(W, b, strict=True))
