// rtnetlink objects as values: what our datapaths read and write of links, addresses, neighbours,
// FDB entries, routes and rules, and sync(), which makes a set of them agree with what is wanted by
// writing differences only. Called by plugins/common/tunnel.cpp and by plugins.
#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "egw/sdk/datapath_state.hpp"
#include "egw/sdk/status.hpp"
#include "netlink.hpp"

namespace egw::common {

// Our routes and rules carry this protocol number (rtnetlink: RTPROT_*, 0..255; user space may take
// any that /etc/iproute2/rt_protos does not name).
inline constexpr std::uint8_t kRouteProtocol = 119;

struct Link {
  int index = 0;
  std::string name, kind, alias;
  std::uint32_t mtu = 0, group = 0;
  bool up = false;
  sdk::Mac mac{};
  // kind "vxlan"
  std::uint32_t vni = 0;
  std::uint16_t port = 0;
  sdk::Address local;
  bool learning = false, gbp = false, external = false;
};

// nullopt: there is none of that name. Throws sdk::Failure when the kernel does not answer.
[[nodiscard]] std::optional<Link> find_link(NetlinkSocket& socket, std::string_view name);
[[nodiscard]] std::vector<Link> all_links(NetlinkSocket& socket);

struct Route {
  std::uint8_t family = 0;  // AF_INET, AF_INET6
  std::uint32_t table = 0;
  sdk::Prefix destination;  // none: default
  std::uint8_t type = 0;    // RTN_UNICAST, RTN_BLACKHOLE
  std::uint32_t metric = 0;
  sdk::Address gateway;
  int device = 0;  // 0: none
  bool onlink = false;
  friend auto operator<=>(const Route&, const Route&) = default;
  [[nodiscard]] std::string text() const;
};

struct Rule {
  std::uint8_t family = 0;
  std::uint32_t preference = 0;
  std::uint32_t mark = 0, mask = 0;  // mask 0: not looked at
  std::string iif;
  std::uint8_t action = 0;   // FR_ACT_TO_TBL, FR_ACT_GOTO, FR_ACT_NOP
  std::uint32_t target = 0;  // the table or the preference to go to
  bool invert = false;
  sdk::Prefix to{};   // none: any destination
  std::string oif{};  // of questions that name one; reverse path checks do
  friend auto operator<=>(const Rule&, const Rule&) = default;
  [[nodiscard]] std::string text() const;
};

struct ForeignRule {
  Rule rule;
  std::uint8_t protocol = 0;
};

// Neighbour (AF_INET, AF_INET6) or FDB entry (AF_BRIDGE) of one device.
struct Neighbour {
  std::uint8_t family = 0;
  sdk::Address address;  // FDB: the remote underlay address
  sdk::Mac mac{};
  bool permanent = true;
  friend auto operator<=>(const Neighbour&, const Neighbour&) = default;
};

struct LinkAddress {
  sdk::Prefix prefix;
  friend auto operator<=>(const LinkAddress&, const LinkAddress&) = default;
};

// Ours alone: kRouteProtocol.
[[nodiscard]] std::set<Route> our_routes(NetlinkSocket& socket, std::uint8_t family);
[[nodiscard]] std::set<Rule> our_rules(NetlinkSocket& socket, std::uint8_t family);
[[nodiscard]] std::vector<ForeignRule> foreign_rules(NetlinkSocket& socket, std::uint8_t family);
// All of the device.
[[nodiscard]] std::set<Neighbour> neighbours(NetlinkSocket& socket, std::uint8_t family,
                                             int device);
[[nodiscard]] std::set<LinkAddress> addresses(NetlinkSocket& socket, int device);

// Messages that make or remove one object.
[[nodiscard]] Message add(const Route& route);
[[nodiscard]] Message remove(const Route& route);
[[nodiscard]] Message add(const Rule& rule);
[[nodiscard]] Message remove(const Rule& rule);
[[nodiscard]] Message add(const Neighbour& n, int device);
[[nodiscard]] Message remove(const Neighbour& n, int device);
[[nodiscard]] Message add(const LinkAddress& a, int device);
[[nodiscard]] Message remove(const LinkAddress& a, int device);

// How often somebody else had changed what we had written: kernel object name -> count.
using Repairs = std::map<std::string, std::uint64_t, std::less<>>;

// Adding an object takes the place of one with an equal place in the kernel, which need not (and
// must not) be removed then. What has no place_of() never takes another's place.
[[nodiscard]] inline auto place_of(const Route& r) {
  return std::make_tuple(r.family, r.table, r.destination, r.metric);
}
[[nodiscard]] inline auto place_of(const Neighbour& n) {
  return std::make_tuple(n.family, n.address, n.family == AF_BRIDGE ? n.mac : sdk::Mac{});
}

// Adds what `wanted` has and `actual` has not, then removes what `actual` has and `wanted` has not.
// What was in `before` (written by us earlier) and had to be added again counts as repaired, and so
// does what had to be removed without having been in `before` (somebody put it there), when
// `before` is given. Answers with the objects that could not be added.
template <class T, class Add, class Remove>
std::vector<std::pair<T, int>> sync(NetlinkSocket& socket, const std::set<T>& wanted,
                                    const std::set<T>& actual, const std::set<T>* before,
                                    std::string_view name, Repairs& repairs, Add make,
                                    Remove unmake) {
  std::vector<Message> messages;
  std::vector<const T*> added;
  std::uint64_t repaired = 0;
  constexpr bool kPlaces = requires(const T& t) { place_of(t); };
  const auto place = [](const T& t) {
    if constexpr (kPlaces) return place_of(t);
    if constexpr (!kPlaces) return 0;
  };
  std::set<decltype(place(*wanted.begin()))> places;
  for (const T& w : wanted) {
    if (actual.count(w) != 0) continue;
    messages.push_back(make(w));
    added.push_back(&w);
    if constexpr (kPlaces) places.insert(place(w));
    if (before != nullptr && before->count(w) != 0) ++repaired;
  }
  for (const T& a : actual) {
    if (wanted.count(a) != 0) continue;
    if (kPlaces && places.count(place(a)) != 0) continue;
    messages.push_back(unmake(a));
    if (before != nullptr && before->count(a) == 0) ++repaired;
  }
  std::vector<std::pair<T, int>> failed;
  if (messages.empty()) return failed;
  const std::vector<int> errors = socket.requests(messages);
  for (std::size_t i = 0; i < added.size(); ++i) {
    if (errors[i] != 0 && errors[i] != EEXIST) failed.emplace_back(*added[i], errors[i]);
  }
  if (repaired != 0) repairs[std::string(name)] += repaired;
  return failed;
}

}  // namespace egw::common
