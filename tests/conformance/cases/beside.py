"""Beside others on the same node: masquerade rules, services, NetworkPolicy, marks, reverse path filters."""

import time

import sockets
from rig import ALL, EIP4, EIP6, PATIENCE, SERVER4, SERVER6, net
from suite import FAMILIES, NODES, POST_DNAT, case, skip

MASQUERADE = {
    "nftables": "nft add table inet cni; nft add chain inet cni post '{ type nat hook postrouting priority 100; }'; "
                "nft add rule inet cni post ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade; "
                "nft add rule inet cni post ip6 saddr fd00:244::/32 ip6 daddr != fd00:244::/32 masquerade",
    "iptables-nft": "iptables-nft -w -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE; "
                    "ip6tables-nft -w -t nat -A POSTROUTING -s fd00:244::/32 ! -d fd00:244::/32 -j MASQUERADE",
    "iptables-legacy": "iptables-legacy -w -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE; "
                       "ip6tables-legacy -w -t nat -A POSTROUTING -s fd00:244::/32 ! -d fd00:244::/32 -j MASQUERADE",
}


@case("beside-masquerade",
      "A CNI's masquerade does not touch a steered packet, on no node, whoever came first, and goes on for others",
      flavour=list(MASQUERADE), first={"theirs-first": True, "ours-first": False})
def masquerade_of_a_cni(rig, flavour, first):
    """On every node, before and after ours: steered packets keep their way, others are masqueraded."""
    pods = [rig.pod(n) for n in rig.nodes]
    other = rig.pod("n1")
    for pod in pods:
        rig.steer(pod, ALL)
    if first:
        for node in rig.nodes:
            rig.sh(node, MASQUERADE[flavour])
    rig.apply()
    if not first:
        for node in rig.nodes:
            rig.sh(node, MASQUERADE[flavour])
    for pod in pods:
        assert pod.source(4) == EIP4 and pod.source(6) == EIP6, pod.name
    assert other.source(4) == rig.address("n1") and other.source(6) == rig.address("n1", 6)


DNAT = {
    "nftables": ("nft add table {f} kube; nft add chain {f} kube pre '{{ type nat hook prerouting priority -100; }}'; "
                 "nft add rule {f} kube pre {f} daddr {vip} udp dport 80 dnat to {to}"),
    # kube-proxy puts its rules first.
    "iptables": "{t} -w -t nat -I PREROUTING -d {vip} -p udp --dport 80 -j DNAT --to-destination {to}",
}


@case("beside-service-to-pod", "A connection that a service turns into a pod's is not steered", flavour=list(DNAT))
def a_service_that_leads_to_a_pod_is_not_steered(rig, pod, flavour):
    """A service's external address: the destination is outside by its looks, a pod in truth."""
    backend = rig.pod("n1")
    server = [sockets.udp(backend.ns, bind=(a, 8080)) for a in (backend.ipv4, backend.ipv6)]
    for s, f, vip, to, t in ((server[0], "ip", "203.0.113.9", f"{backend.ipv4}:8080", "iptables-nft"),
                             (server[1], "ip6", "2001:db8::9", f"[{backend.ipv6}]:8080", "ip6tables-nft")):
        rig.sh("n1", DNAT[flavour].format(f=f, vip=vip, to=to, t=t))
        client = sockets.udp(pod.ns, to=(vip, 80))
        client.send(b"hello")
        s.settimeout(PATIENCE)
        data, peer = s.recvfrom(100)
        assert data == b"hello" and peer[0] in (pod.ipv4, pod.ipv6)
        s.sendto(b"back", peer)
        client.settimeout(PATIENCE)
        assert client.recv(100) == b"back"
        client.close()
        s.close()
    assert pod.source(4) == EIP4 and pod.source(6) == EIP6


@case("beside-service-outside", "A service with endpoints outside is judged by its endpoint")
def a_service_that_leads_outside_is_judged_by_its_endpoint(rig):
    if not rig.driver("n1").must("plugin")["capabilities"] & POST_DNAT:
        skip("not offered: POST_DNAT")
    pod = rig.pod("n1")
    rig.steer(pod, [(SERVER4 + "/32", 7)])
    rig.apply()
    rig.sh("n1", DNAT["nftables"].format(f="ip", vip="198.51.100.7", to=f"{SERVER4}:7000"))
    assert pod.source(4, to="198.51.100.7", port=80) == EIP4


@case("beside-host-address", "A destination that is an address of the host is never classified",
      family=FAMILIES)
def a_destination_local_to_the_host_is_never_steered(rig, pod, family):
    """ipvs: the service's address is one of the host's own. A mark of ours on its packets would steer what ipvs makes
    of them."""
    service = "203.0.113.50" if family == 4 else "2001:db8::50"
    net.batch(rig.ns("n1"), f"addr add {service}/{32 if family == 4 else 128} dev lo")
    rig.sh("n1", "nft -f - <<E\ntable inet seen {\nchain in {\ntype filter hook input priority 0;\n"
                  "udp dport 80 meta mark & 0xffffffff != 0 counter\nudp dport 80 counter\n}\n}\nE")
    server = sockets.udp(rig.ns("n1"), bind=(service, 80))
    client = sockets.udp(pod.ns, to=(service, 80))
    client.send(b"x")
    server.settimeout(PATIENCE)
    assert server.recvfrom(10)[1][0] == (pod.ipv4 if family == 4 else pod.ipv6)
    text = net.enter(rig.ns("n1"), "nft", "list", "chain", "inet", "seen", "in")
    assert [int(line.split("packets ")[1].split()[0]) for line in text.splitlines() if "packets" in line] == [0, 1]
    client.close()
    server.close()


@case("beside-networkpolicy", "FORWARD rules on the pod's node decide over steered packets",
      node=NODES, tool=["iptables-nft", "iptables-legacy", "nft"])
def network_policy_still_decides(rig, node, tool):
    """FORWARD on the pod's node: established passes, what comes from pods and is not allowed is dropped."""
    pod = rig.pod(node)
    rig.steer(pod, ALL)
    rig.apply()
    if tool == "nft":
        rig.sh(node, "nft add table inet np; nft add chain inet np forwarded '{ type filter hook forward priority 0; }'; "
                      "nft add rule inet np forwarded ct state established,related accept; "
                      f"nft add rule inet np forwarded iifname {pod.host} udp dport 7000 accept; "
                      f"nft add rule inet np forwarded iifname {pod.host} drop; "
                      f"nft add rule inet np forwarded oifname {pod.host} drop")
    else:
        for t in (tool, tool.replace("ip", "ip6", 1)):
            rig.sh(node, f"{t} -w -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT; "
                          f"{t} -w -A FORWARD -i {pod.host} -p udp --dport 7000 -j ACCEPT; "
                          f"{t} -w -A FORWARD -i {pod.host} -j DROP; {t} -w -A FORWARD -o {pod.host} -j DROP")
    rig.serve(7001)
    for family, eip in ((4, EIP4), (6, EIP6)):
        assert pod.source(family) == eip
        assert pod.source(family, 0.2, port=7001) is None


@case("beside-networkpolicy-gateway", "FORWARD rules on the owner decide over steered packets")
def network_policy_on_the_gateway(rig, pod):
    """FORWARD of the owner drops what nobody allowed: a host endpoint's policy decides over steered packets, too."""
    rig.sh("n2", "nft add table inet np; nft add chain inet np forwarded '{ type filter hook forward priority 0; policy "
                  "drop; }'; nft add rule inet np forwarded ct state established,related accept; "
                  "nft add rule inet np forwarded iifname egress.vxlan udp dport 7000 accept")
    rig.serve(7001)
    for family, eip in ((4, EIP4), (6, EIP6)):
        assert pod.source(family) == eip
        assert pod.source(family, 0.2, port=7001) is None


@case("beside-from-outside", "The replies of a pod to a client from outside keep their way and address",
      node=NODES)
def a_connection_from_outside_is_answered_natively(rig, node):
    """Its replies take the way they always took: not through the tunnel, with the pod's own address."""
    pod = rig.pod(node)
    rig.steer(pod, ALL)
    rig.apply()
    for address, family in ((pod.ipv4, 4), (pod.ipv6, 6)):
        listener = sockets.listen(pod.ns, address, 8080)
        outside = sockets.connect(rig.ns("srv"), address, 8080)
        inside, peer = listener.accept()
        assert peer[0] == (SERVER4 if family == 4 else SERVER6)
        captures = [sockets.Capture(rig.ns(n), "egress.vxlan") for n in rig.nodes]
        inside.send(b"hello")
        assert outside.recv(100) == b"hello"
        outside.send(b"x" * 1000)
        assert len(inside.recv(2000)) == 1000
        server = sockets.udp(pod.ns, bind=(address, 9000))  # UDP that begins outside likewise
        client = sockets.udp(rig.ns("srv"), to=(address, 9000))
        client.send(b"?")
        server.settimeout(PATIENCE)
        _, peer = server.recvfrom(10)
        server.sendto(b"!", peer)
        client.settimeout(PATIENCE)
        assert client.recv(10) == b"!"  # the socket is connected: only from the pod's own address
        for capture in captures:
            assert [f for f in capture.stop() if capture.source(f[1]) == address] == []
        for s in (inside, outside, listener, server, client):
            s.close()


# A foreign rule sets bits in mangle prerouting; another one counts them at the very end of the way.
FOREIGN = {f"{b:#x}": b for b in (0x00010000, 0x00004000, 0x00008000, 0x0000c000, 0x00000539, 0x00000200, 0x00000080)}
MASKS = {f"{m:#x}": m for m in (0xfff80000, 0xff000000, 0x00fff000, 0x0000000f, 0x00003fff)}
IDS = {f"{i:#x}": i for i in (1, 0x200, 0x80, 0x539, 0x3fff)}


@case("beside-foreign-marks", "Others' mark bits survive on packets that do not enter the tunnel",
      bits=FOREIGN, family=FAMILIES)
def foreign_mark_bits_survive(rig, bits, family):
    """On packets that do not enter the tunnel: of a bystander, of a pod on the owner, on the gateway's way out."""
    for node in ("n1", "n2"):
        rig.sh(node, "nft -f - <<E\ntable inet foreign {\n"
                      f"chain pre {{ type filter hook prerouting priority -150; iifname pod* meta mark set meta mark "
                      f"or {bits:#x}; }}\n"
                      f"chain post {{ type filter hook postrouting priority 300; oifname eth0 udp dport 7000 meta "
                      f"mark and {bits | 0xff000000:#x} == {bits:#x} counter; oifname eth0 udp dport 7000 counter; }}"
                      "\n}\nE")
    bystander, local, remote = rig.pod("n1"), rig.pod("n2"), rig.pod("n1")
    rig.steer(local, ALL)
    rig.steer(remote, ALL)
    rig.apply()

    def counts(node):
        text = net.enter(rig.ns(node), "nft", "list", "chain", "inet", "foreign", "post")
        return [int(line.split("packets ")[1].split()[0]) for line in text.splitlines() if "packets" in line]

    assert bystander.source(family) == (bystander.ipv4 if family == 4 else bystander.ipv6)
    marked, all_ = counts("n1")  # who has had no answer asks again
    assert marked == all_ >= 1
    client = sockets.udp(local.ns, to=(SERVER4 if family == 4 else SERVER6, 7000))
    for _ in range(5):
        sockets.ask(client, b"\0" * 64)
    client.close()
    marked, all_ = counts("n2")
    # The connection's first packet carries the id in the low 14 bits instead.
    assert all_ == 5 and marked >= (5 if bits & 0x3fff == 0 else 4)
    eip = EIP4 if family == 4 else EIP6
    assert remote.source(family) == eip and local.source(family) == eip


@case("beside-foreign-ctmarks", "Others' bits of a connection's mark survive; ours stay within marks.ctMask",
      mask=MASKS)
def foreign_bits_of_a_connections_mark_survive(rig, mask):
    """The peer's number goes into marks.ctMask, wherever that is, and nowhere else."""
    rig.node_extra = {"ctMask": mask}
    foreign = 0xa5a5a5a5 & ~mask
    rig.sh("n2", "nft -f - <<E\ntable ip foreign {\nchain pre { type filter hook prerouting priority -160; iifname "
                  f'"egress.vxlan" ct state new ct mark set ct mark and {mask:#x} or {foreign:#x}; }}\n}}\nE')
    pods = [rig.pod("n1"), rig.pod("n3")]
    for pod in pods:
        rig.steer(pod, ALL)
    rig.apply()
    for pod in pods:
        assert pod.source(4) == EIP4 and pod.source(6) == EIP6
        entries = net.enter(rig.ns("n2"), "conntrack", "-L", "-s", pod.ipv4).splitlines()
        marks = {int(e.split(" mark=")[1].split()[0]) for e in entries}
        assert {m & ~mask for m in marks} == {foreign}, entries


OTHER_MASKS = {"low": {"slotMask": 0x00ff0000, "ctMask": 0xff000000}, "narrow": {"slotMask": 0xf0000000, "ctMask": 0x0fff0000}}


@case("beside-masks", "The mark bits are the configured ones: a rule on the others meets no packet of ours", masks=OTHER_MASKS)
def the_configured_bits_are_used(rig, masks):
    """Somebody drops whatever has a bit beside slotMask, the id's and kube-proxy's, on every node."""
    rig.node_extra = masks
    others = 0xffffffff & ~masks["slotMask"] & ~0x3fff
    for node in rig.nodes:
        rig.sh(node, "nft -f - <<E\ntable inet strict {\nchain c { type filter hook postrouting priority 300; "
                     f"meta mark and {others:#x} != 0 drop; }}\n}}\nE")
    pods = rig.everywhere()
    for pod in pods:
        assert [pod.source(4), pod.source(6)] == [EIP4, EIP6], pod.name


@case("beside-ids-like-marks", "Egress ids that look like others' marks are not taken by others' ip rules",
      id_=IDS)
def ids_that_look_like_others_marks(rig, id_):
    """Rules of Cilium, AWS and Istio that look at marks must not take our packets."""
    rig.egresses.clear()
    rig.egress(id_, EIP4, EIP6, owner="n2")
    for node in rig.nodes:
        net.batch(rig.ns(node), "rule add pref 9 fwmark 0x200/0xf00 lookup 2004",
                  "route add blackhole default table 2004", "rule add pref 1024 fwmark 0x80/0x80 lookup 2005",
                  "route add blackhole default table 2005", "rule add pref 100 fwmark 0x539 lookup 2006",
                  "route add blackhole default table 2006")
        net.batch(rig.ns(node), "rule add pref 99 fwmark 0x3000/0x3000 lookup 2004")
    pods = [rig.pod(n) for n in rig.nodes]
    for pod in pods:
        rig.steer(pod, [("0.0.0.0/0", id_), ("::/0", id_)])
    rig.apply()
    for pod in pods:
        assert pod.source(4) == EIP4 and pod.source(6) == EIP6, pod.name


KUBE_PROXY = ("{t} -w -t nat -A PREROUTING -s {pods} -j MARK --or-mark 0x4000; "
              "{t} -w -t nat -A POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN; "
              "{t} -w -t nat -A POSTROUTING -j MARK --xor-mark 0x4000; "
              "{t} -w -t nat -A POSTROUTING -j MASQUERADE --random-fully; "
              "{t} -w -A FORWARD -m mark --mark 0x8000/0x8000 -j DROP; "
              "{t} -w -A INPUT -m mark --mark 0x8000/0x8000 -j DROP; "
              "{t} -w -A OUTPUT -m mark --mark 0x8000/0x8000 -j DROP")
KUBE_PROXY_NFT = """nft -f - <<E
table {f} kube-proxy {{
chain services {{ type nat hook prerouting priority -100; {f} saddr {pods} meta mark set meta mark or 0x4000; }}
chain masquerading {{
type nat hook postrouting priority 100
meta mark and 0x4000 == 0 return
meta mark set meta mark xor 0x4000
masquerade fully-random
}}
chain forwarded {{ type filter hook forward priority 0; meta mark and 0x8000 != 0 drop; }}
}}
E"""


@case("beside-kube-proxy", "kube-proxy's marks, masquerade and drops change nothing",
      node=NODES,
      backend=["nft", "legacy", "nftables"])
def kube_proxys_marks_do_not_matter(rig, node, backend):
    """0x4000 set on every packet and masquerade for it at the end, as kube-proxy does for services; packets with
    0x8000 are dropped, and none of ours has it."""
    pod = rig.pod(node)
    rig.steer(pod, ALL)
    rig.apply()
    for host in rig.nodes:
        for six, pods in (("", "10.244.0.0/16"), ("6", "fd00:244::/32")):
            rules = KUBE_PROXY_NFT if backend == "nftables" else KUBE_PROXY
            rig.sh(host, rules.format(t=f"ip{six}tables-{backend}", f=f"ip{six}", pods=pods))
    assert pod.source(4) == EIP4 and pod.source(6) == EIP6


@case("beside-rp-filter", "rp_filter off, strict and loose on all devices, src_valid_mark 0 and 1: the path works",
      strict=[0, 1, 2], all_=[0, 1])
def reverse_path_filters(rig, strict, all_):
    """rp_filter on all, uplink, pod and tunnel device, times src_valid_mark; replies must be seen."""
    pods = rig.everywhere()
    for node in rig.nodes:
        keys = {f"net/ipv4/conf/{d}/rp_filter": strict
                for d in ("all", "eth0", "egress.vxlan", *[p.host for p in pods if p.node == node])}
        rig.sysctl(node, {**keys, "net/ipv4/conf/all/src_valid_mark": all_})
    # Without the server's route to the pods nothing but the tunnel leads back.
    for i in range(1, 4):
        net.batch(rig.ns("srv"), f"route del 10.244.{i}.0/24")
    for pod in pods:
        assert pod.source(4) == EIP4, pod.name
        stream = rig.traffic(pod, 4, streams=1)
        time.sleep(0.1)
        report = rig.report(stream)
        assert [s["source"] for s in report["sources"]] == [EIP4] and report["tcp_resets"] == 0, report


@case("beside-rp-filter-device", "rp_filter strict or loose on one device alone: the path works",
      only=["all", "uplink", "pod", "tunnel"], strict=[1, 2], valid=[0, 1])
def reverse_path_filter_of_one_device(rig, pod, only, strict, valid):
    device = {"all": "all", "uplink": "eth0", "pod": pod.host, "tunnel": "egress.vxlan"}[only]
    marks = "all" if only == "tunnel" else device  # the tunnel device's own key is egw's to set, and is 1
    for node in rig.nodes:
        if only != "pod" or node == "n1":
            rig.sysctl(node, {"net/ipv4/conf/all/rp_filter": 0, "net/ipv4/conf/all/src_valid_mark": 0,
                              f"net/ipv4/conf/{device}/rp_filter": strict,
                              f"net/ipv4/conf/{marks}/src_valid_mark": valid})
    for i in range(1, 4):
        net.batch(rig.ns("srv"), f"route del 10.244.{i}.0/24")
    assert pod.source(4) == EIP4


@case("beside-firewalld", "firewalld's IPv6 reverse path rule drops nothing of ours")
def firewalld_ipv6_reverse_path_filter(rig, pod):
    for node in rig.nodes:
        rig.sh(node, "nft -f - <<E\ntable inet firewalld {\n chain rpf { type filter hook prerouting priority "
                      "mangle + 10; icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept\n meta nfproto ipv6 "
                      "fib saddr . mark . iif oif missing drop\n }\n}\nE")
    assert pod.source(6) == EIP6
    local = rig.pod("n2")
    rig.steer(local, ALL)
    rig.apply("n2")
    assert local.source(6) == EIP6
