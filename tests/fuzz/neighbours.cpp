// ARP and neighbour discovery frames as the announcer takes them from the wire. What parses can be
// answered, and the answer is a good frame itself.
#include "egw/net/frames.hpp"
#include "fuzz/fuzz.hpp"

using namespace egw;
using fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const net::FrameView frame(data, size);
  const model::Mac own{0x02, 0, 0, 0, 0, 1};
  if (const auto arp = net::parse_arp(frame); arp && arp->asks && arp->target.is_v4()) {
    const auto answer = net::parse_arp(net::arp_reply(own, *arp));
    require(answer && !answer->asks && answer->claimed == arp->target,
            "the answer claims the target");
  }
  for (const bool ready : {true, false}) {
    const auto ndp = net::parse_ndp(frame, ready);
    if (!ndp || !ndp->asks) continue;
    require(ndp->target.is_v6(), "NDP asks for an IPv6 address");
    const auto answer = net::parse_ndp(net::ndp_reply(own, *ndp));
    require(answer && !answer->asks && answer->claimed == ndp->target,
            "the answer claims the target");
  }
  return 0;
}
