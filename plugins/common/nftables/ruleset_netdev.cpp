// The chains of the netdev table: what enters the tunnel, and on nodes that may serve nothing what
// comes in by the underlay and out of the tunnel.
#include <netinet/in.h>
// After the C library's.
#include <linux/netfilter.h>

#include "ruleset.hpp"
#include "text.hpp"

namespace egw::common {

// What enters the tunnel.
void Ruleset::add_tunnel_egress(std::vector<Chain>& out) const {
  const std::string id = "meta mark & " + mark_text(kIdMask);
  Chain into{"into_tunnel",
             Hook{"filter", "egress", NF_NETDEV_EGRESS, 0, node_.tunnel_device},
             {"meta l4proto tcp jump clamp", mark_is(Slot::kSteer) + " goto to_owner",
              mark_is(Slot::kBack) + " goto to_client"}};
  if (node_.tunnel_v4) {
    into.rules.push_back("ip saddr " + node_.tunnel_v4.address.text() + " meta mark set 0 accept");
  }
  if (node_.tunnel_v6) {
    into.rules.push_back("ip6 saddr " + node_.tunnel_v6.address.text() + " meta mark set 0 accept");
  }
  into.rules.push_back(counted("not_steered", "drop"));
  out.push_back(std::move(into));
  out.push_back({"clamp",
                 {},
                 {"tcp flags & (syn|rst) != syn return",
                  "meta protocol ip tcp option maxseg size set " + std::to_string(mtu_ - 40),
                  "meta protocol ip6 tcp option maxseg size set " + std::to_string(mtu_ - 60)}});
  out.push_back({"to_owner",
                 {},
                 {"ether daddr set " + id + " map @owner meta mark set " + id + " | " +
                      mark_text(marks_.value(Slot::kOuter)) + " accept",
                  counted("no_owner", "drop")}});
  // As what goes to an owner: the program of the ebpf datapath, which may still be or be again at
  // the device, knows by it that the packet has been directed.
  out.push_back({"to_client",
                 {},
                 {"ether daddr set " + id + " map @back meta mark set " +
                      mark_text(marks_.value(Slot::kOuter)) + " accept",
                  counted("no_peer", "drop")}});
}

// Instead of raw_in, which every packet of the node passes. Nothing is judged here: what is missed,
// or has lost its mark, is caught in classify.
void Ruleset::add_ingress(std::vector<Chain>& out) const {
  const std::string f(node_.underlay.is_v6() ? "ip6" : "ip");
  const auto hook = [](const std::string& device) {
    return Hook{"filter", "ingress", NF_NETDEV_INGRESS, 0, device};
  };
  // A fragment that is not tracked would not be put together with the others.
  const std::string whole = f == "ip" ? "ip frag-off & 0x3fff == 0" : "exthdr frag missing";
  out.push_back({"from_wire",
                 hook(node_.parent_device),
                 {"udp dport " + std::to_string(node_.tunnel_port) + " " + f + " daddr " +
                  node_.underlay.text() + " " + whole + " notrack"}});
  // Reverse path checks of others must see the mark.
  out.push_back({"unwrap",
                 hook(node_.tunnel_device),
                 {"meta mark & " + mark_text(kIdMask) + " == 0 " + set_inner()}});
}

}  // namespace egw::common
