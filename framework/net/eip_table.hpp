// EipTable: what the announcer does for each EIP and when, without sockets and clock: it is told of
// time, interfaces and messages and says what to send. Used by the announcer under its lock.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "egw/net/announcer.hpp"
#include "egw/net/frames.hpp"

namespace egw::net {

using TimePoint = std::chrono::steady_clock::time_point;

// An interface on which EIPs can be announced.
struct PortInfo {
  unsigned index = 0;
  std::string name;
  model::Mac mac{};
  std::vector<model::Prefix> prefixes;          // on-link, of its addresses
  bool default_v4 = false, default_v6 = false;  // has the best default route of the family
  friend bool operator==(const PortInfo&, const PortInfo&) = default;
};

class EipTable {
 public:
  enum class Send : std::uint8_t { kProbe, kAnnouncement };
  struct Due {
    model::Address address;
    Send what = Send::kProbe;
    std::vector<unsigned> ports;
  };
  struct Outcome {
    bool answer = false;    // answer the request
    bool announce = false;  // defend: announce once, at once, on all ports of the EIP
    bool tell = false;      // report `claim`
    Claim claim;
  };

  explicit EipTable(const AnnouncerOptions& options) : options_(options) {}

  void set(const std::vector<AnnouncedEip>& eips, TimePoint now);
  void set_ports(std::vector<PortInfo> ports, TimePoint now);
  void set_gateway_macs(const std::vector<model::Mac>& macs) {
    gateway_macs_ = {macs.begin(), macs.end()};
  }
  void confirm(const model::Address& address, TimePoint now);
  void mute(bool on, TimePoint now);

  // A message that came in on a port. Our own are ignored.
  Outcome on_message(unsigned port, const NeighbourMessage& message, TimePoint now);
  // What is to be sent now, at most `limit`; each is followed by sent() or failed().
  [[nodiscard]] std::vector<Due> due(TimePoint now, std::size_t limit);
  // It could not be sent now: due again at `when`.
  void again(const Due& item, TimePoint when);
  // When due() has something next; TimePoint::max(): never.
  [[nodiscard]] TimePoint next() const;

  // The solicited-node groups wanted on each port.
  [[nodiscard]] std::map<unsigned, std::set<model::Address>> groups() const;
  // announcer.hpp
  [[nodiscard]] std::vector<model::Address> silent() const;
  [[nodiscard]] std::vector<LostSubnet> lost_subnets() const;
  // Whether those may have changed since the last call.
  [[nodiscard]] bool take_news() { return std::exchange(news_, false); }
  [[nodiscard]] const std::vector<unsigned>* ports_of(const model::Address& address) const;
  [[nodiscard]] const std::vector<PortInfo>& ports() const { return ports_; }
  [[nodiscard]] const PortInfo* port(unsigned index) const;
  // Warnings since the last call.
  [[nodiscard]] std::vector<std::string> take_warnings();

  std::uint64_t conflicts = 0, yielded = 0;

 private:
  enum class State : std::uint8_t {
    kWaiting,  // no interface to announce on, or muted
    kProbing,
    kActive,
    kYielded,  // another gateway has it; until confirm()
    kBlocked,  // a stranger has it; probed again later
  };
  struct Eip {
    State state = State::kWaiting;
    bool probe = true;       // before the next announcement
    bool returning = false;  // the next probe is after an absence: another gateway's answer counts
    std::vector<unsigned> ports;
    std::size_t step = 0;
    TimePoint since{};  // of the state
    TimePoint due = TimePoint::max();
    TimePoint defended{}, told{};
    model::Mac told_mac{};
    bool ever_defended = false, ever_told = false;
    bool assigned = false;  // ports have been looked for
    bool given = false;     // activated because the store says so, not after an absence
  };

  void begin(const model::Address& address, Eip& eip, TimePoint now);
  void activate(const model::Address& address, Eip& eip, TimePoint now);
  void suspend(const model::Address& address, Eip& eip);
  void yield(const model::Address& address, Eip& eip);
  void schedule(const model::Address& address, Eip& eip, TimePoint when);
  [[nodiscard]] std::vector<unsigned> choose_ports(const model::Address& address,
                                                   bool& fallback) const;
  void assign_ports(const model::Address& address, Eip& eip);
  void note_lost(const std::vector<PortInfo>& former);
  void on_probe_answer(Eip& eip, const model::Address& address, bool gateway, TimePoint now,
                       Outcome& out);
  void tell(Eip& eip, TimePoint now, Outcome& out);
  void on_claim(const model::Address& address, Eip& eip, TimePoint now, Outcome& out);

  const AnnouncerOptions& options_;
  std::map<model::Address, Eip> eips_;
  std::set<std::pair<TimePoint, model::Address>> timers_;
  std::vector<PortInfo> ports_;
  std::map<model::Prefix, std::string> lost_;  // subnet -> interface
  std::set<model::Mac> gateway_macs_;
  std::vector<model::Address> unannounced_;                        // for take_warnings
  std::map<std::string, std::vector<model::Address>> by_default_;  // port name -> EIPs
  bool muted_ = false;
  bool news_ = false;
};

}  // namespace egw::net
