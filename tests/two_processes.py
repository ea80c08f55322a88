"""One process of a sweep that several share: run by test_devices.py, as a cluster would start it."""

import sys

import jax

coordinator, process, store = sys.argv[1:]
jax.config.update("jax_enable_x64", True)
jax.distributed.initialize(coordinator, num_processes=2, process_id=int(process))

import skajax as ska  # noqa: E402

X = jax.random.uniform(jax.random.key(0), (12, 8))
NETWORK = ska.mlp([6, 4], scale=0.3)


def sweep(**options):
    """The sweep that all processes, and the test by itself, make."""
    return ska.sweep(
        NETWORK, lambda seed: NETWORK.init(jax.random.key(seed), X), X, lambda dt: ska.Published(dt),
        t1=0.5, over=ska.grid(dt=[0.1, 0.05], seed=range(9)),
        observe=("entropy", "flow_norm"), **options,
    )  # fmt: skip


if __name__ == "__main__":
    assert jax.process_count() == 2 and len(jax.local_devices()) == 4
    data = sweep(devices="all", store=store)
    mine = [lane for lane in range(18) if lane % 2 == int(process)]
    codes = data.outcome_code.values.ravel()
    assert (codes[mine] == 0).all() and set(codes) <= {0, -3}
    print(f"process {process}: {(codes == 0).sum()} lanes there")
