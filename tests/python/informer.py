"""A list and watch over many changes, as an informer does it, with watches that end and resume; none may be lost.

usage: informer.py KUBECONFIG CHANGES
"""
import sys
import threading

from kubernetes import client, config, watch

NAMESPACE, LABEL = "default", "informer=yes"


def write(changes):
    """Creations, patches and deletions in turn over a hundred names."""
    api = client.CoreV1Api()
    for number in range(changes):
        name, what = f"i-{number % 100}", number // 100 % 4
        if what == 0:
            api.create_namespaced_config_map(NAMESPACE, client.V1ConfigMap(
                metadata=client.V1ObjectMeta(name=name, labels={"informer": "yes"}), data={"n": str(number)}))
        elif what == 3:
            api.delete_namespaced_config_map(name, NAMESPACE)
        else:
            api.patch_namespaced_config_map(name, NAMESPACE, {"data": {"n": str(number)}})


def main():
    config.load_kube_config(sys.argv[1])
    changes = int(sys.argv[2])
    api = client.CoreV1Api()
    first = api.list_namespaced_config_map(NAMESPACE, label_selector=LABEL)
    cache = {o.metadata.name: o for o in first.items}
    version = first.metadata.resource_version
    writer = threading.Thread(target=write, args=(changes,))
    writer.start()

    seen, last, rounds = 0, int(version), 0
    while seen < changes:
        rounds += 1
        before = seen
        # Short watches, so that several resume where the last one ended.
        stream = watch.Watch().stream(api.list_namespaced_config_map, NAMESPACE, label_selector=LABEL,
                                      resource_version=version, allow_watch_bookmarks=True, timeout_seconds=2)
        for event in stream:
            meta = event["object"].metadata if event["type"] != "BOOKMARK" else None
            if meta is None:
                continue
            revision = int(meta.resource_version)
            assert revision > last, f"{revision} after {last}"
            last, version, seen = revision, meta.resource_version, seen + 1
            if event["type"] == "DELETED":
                assert cache.pop(meta.name, None) is not None, f"{meta.name} was deleted twice"
            else:
                assert (event["type"] == "ADDED") == (meta.name not in cache), (event["type"], meta.name)
                cache[meta.name] = event["object"]
        assert writer.is_alive() or seen > before or seen == changes, f"only {seen} of {changes} changes arrived"
    writer.join()
    final = api.list_namespaced_config_map(NAMESPACE, label_selector=LABEL)
    want = {o.metadata.name: (o.metadata.resource_version, o.data["n"]) for o in final.items}
    have = {n: (o.metadata.resource_version, o.data["n"]) for n, o in cache.items()}
    assert have == want, (have, want)
    print(f"{seen} changes in {rounds} watches, {len(have)} objects at the end")


main()
