// Announcer: answers ARP and NDP for the EIPs that this node owns, announces them, and notices
// other machines that claim them (RFC 5227, RFC 4861). Runs on a thread of its own with pre-opened
// sockets, so that answers leave within 1 ms whatever the rest of the agent does. No EIP is ever
// made a local address.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "egw/model/address.hpp"
#include "egw/model/node_state.hpp"
#include "egw/model/result.hpp"

namespace egw::net {

struct AnnouncedEip {
  model::Address address;
  bool probe_first = true;  // false: a planned move from a known peer
  friend bool operator==(const AnnouncedEip&, const AnnouncedEip&) = default;
};

// Somebody else claims an EIP of ours (a gratuitous ARP, an ARP request or reply with it as sender,
// an unsolicited neighbour advertisement, a DAD probe).
struct Claim {
  model::Address address;
  model::Mac mac{};
  std::string interface;
  bool from_gateway = false;  // the MAC is a known gateway's (set_gateway_macs)
};

// An EIP of ours that nobody is told of, or not where it is looked for.
struct SilentEip {
  model::Address address;
  // The interface which it was announced on and which has gone, is down or has no carrier; empty:
  // there was none since it came.
  std::string interface;
  friend bool operator==(const SilentEip&, const SilentEip&) = default;
};

struct AnnouncerOptions {
  std::vector<std::string> exclude;  // regular expressions on interface names, anchored both ends
  std::string tunnel_device;         // ours: never announced on
  std::vector<std::chrono::milliseconds> announce_at{
      // after taking an EIP over
      std::chrono::milliseconds{0}, std::chrono::milliseconds{50}, std::chrono::milliseconds{200},
      std::chrono::milliseconds{1000}, std::chrono::milliseconds{3000}};
  std::chrono::milliseconds probe_wait{100};  // how long a conflicting answer is waited for
  std::chrono::seconds defend_interval{10};   // RFC 5227 DEFEND_INTERVAL
};

struct AnnouncerCounters {
  std::uint64_t arp_answered = 0, ndp_answered = 0, announcements = 0, conflicts = 0, yielded = 0;
};

class Announcer {
 public:
  // Called on the announcer's thread; must not block.
  using OnClaim = std::function<void(const Claim&)>;
  using OnSilent = std::function<void()>;  // silent() may have changed
  using Log = std::function<void(int level, std::string message)>;
  static Result<std::unique_ptr<Announcer>> start(AnnouncerOptions options, OnClaim on_claim,
                                                  OnSilent on_silent, Log log);
  ~Announcer();  // stops answering at once

  // Replaces the set of EIPs owned. What is new is (probed and) announced, what is gone is no
  // longer answered when this returns.
  void set(std::vector<AnnouncedEip> eips);
  // MACs of the interfaces that other gateways announce on: a claim by one of these means that the
  // EIP has moved; the announcer yields (stops answering) until confirm().
  void set_gateway_macs(std::vector<model::Mac> macs);
  // The store confirms that `address` is still ours after we yielded: answer and announce again.
  void confirm(const model::Address& address);
  // true: answer and announce nothing (uplink lost, draining) until false.
  void mute(bool on);
  [[nodiscard]] AnnouncerCounters counters() const;
  // By address. One whose interface was lost stays here until that is back, also when it is ours no
  // more: this node cannot serve it.
  [[nodiscard]] std::vector<SilentEip> silent() const;
  // Of the interfaces that EIPs may be announced on. Sorted, at most kMostMacs.
  [[nodiscard]] std::vector<model::Mac> port_macs() const;
  static constexpr std::size_t kMostMacs = 16;

 private:
  Announcer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace egw::net
