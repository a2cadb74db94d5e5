"""Many peers: replies find the node that their connection came from. The rate: tests/bench/peers.py."""

import sockets
from rig import ALL, EIP4, EIP6, SERVER4, SERVER6
from suite import case


@case("peers-replies", "Among 3, 300 and 3,000 peers a reply goes to the node that its connection came from",
      peers=[3, 300, 3000])
def replies_go_to_the_right_peer(rig, peers):
    """Pods of two nodes and of the owner itself, one source port, one destination: nothing but the peer's number in
    the connection tells the replies apart."""
    rig.crowd(peers)
    pods = [rig.pod(n) for n in ("n1", "n3", "n2", "n1")]
    for pod in pods:
        rig.steer(pod, ALL)
    rig.apply()
    for server, eip in ((SERVER4, EIP4), (SERVER6, EIP6)):
        captures = [sockets.Capture(pod.ns) for pod in pods]
        asking = [sockets.udp(pod.ns, bind=(pod.ipv6 if ":" in server else pod.ipv4, 40000), to=(server, 7000))
                  for pod in pods]
        for turn in range(5):
            for i, s in enumerate(asking):
                # The probe's answer repeats the question; eight bytes tell whose it was.
                assert sockets.ask(s, b"\0" * 8 + bytes([i, turn] * 4)) is not None, (i, turn)
        for s in asking:
            s.close()
        for capture in captures:
            frames = [f for _, f, kind in capture.stop() if kind != 4 and capture.source(f) == server]
            assert len(frames) == 5, "an answer came to the wrong pod, or twice"
        for pod in pods:
            assert pod.source(4 if server == SERVER4 else 6) == eip
