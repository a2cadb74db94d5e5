// EipKeeper: decides which EIPs this node answers for at each moment, and which former ones are to
// be forgotten. Called by the agent, with its steady clock's time; no I/O but the announcer's.
//
// An EIP is announced when the store gives it to this node AND the datapath has programmed it. In a
// planned move the new owner waits until the leader says that everybody steers to it (movingFrom is
// cleared), at most kMoveWaitMs; the old owner goes on answering until it hears the new one, at
// most kHandOverMs. 60 s after an EIP has left, its connection tracking entries are forgotten.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "egw/core/compile.hpp"
#include "egw/model/address.hpp"
#include "egw/net/announcer.hpp"

namespace egw::runtime {

// What the agent needs of net::Announcer.
class AnnouncerPort {
 public:
  virtual ~AnnouncerPort() = default;
  virtual void set(std::vector<net::AnnouncedEip> eips) = 0;
  virtual void set_gateway_macs(std::vector<model::Mac> macs) = 0;
  virtual void confirm(const model::Address& address) = 0;
  virtual void mute(bool on) = 0;
  [[nodiscard]] virtual net::AnnouncerCounters counters() const = 0;
  [[nodiscard]] virtual std::vector<model::Address> silent() const = 0;
  [[nodiscard]] virtual std::vector<net::LostSubnet> lost_subnets() const = 0;
  [[nodiscard]] virtual std::vector<model::Mac> port_macs() const = 0;
};

class EipKeeper {
 public:
  static constexpr std::int64_t kMoveWaitMs = 500;
  static constexpr std::int64_t kHandOverMs = 2000;
  static constexpr std::int64_t kForgetMs = 60'000;

  explicit EipKeeper(AnnouncerPort& announcer) : announcer_(announcer) {}

  // The store's word, before it is applied: what is no longer ours is no longer answered when this
  // returns, except what is in `handing_over` (planned moves away from this node).
  void assign(const std::vector<core::OwnedEip>& owned,
              const std::set<model::Address>& handing_over, std::int64_t now_ms);
  // The store's word while the datapath is still busy with an older one: takes away what is in
  // neither set and changes nothing else.
  void withdraw(const std::set<model::Address>& ours, const std::set<model::Address>& handing_over,
                std::int64_t now_ms);
  // The datapath holds everything assigned, except the egress ids in `failed`.
  void realised(const std::set<std::uint32_t>& failed, std::int64_t now_ms);
  // Somebody else claims an address. True if it concerns one that this node answers for.
  bool claimed(const model::Address& address, bool by_gateway, std::int64_t now_ms);
  // The store says after all that a yielded address is ours.
  void confirmed(const model::Address& address);
  // Does what is due; returns the time of the next thing to do, kForever if none.
  std::int64_t tick(std::int64_t now_ms);

  // EIPs found at start that others own and this node may have served before.
  void left_before(const std::set<model::Address>& eips, std::int64_t now_ms);
  // The former EIP whose time came first; it is then out of the list.
  [[nodiscard]] bool take_forgettable(std::int64_t now_ms, model::Address& eip);
  [[nodiscard]] std::int64_t next_forgettable() const;  // kForever: there is none
  // It could not be forgotten: once more then, unless it is owned again.
  void forget_again(const model::Address& eip, std::int64_t at_ms);

  // Those that answers are given for: not those that nobody hears.
  [[nodiscard]] std::vector<model::Address> announced() const;
  [[nodiscard]] std::vector<model::Address> yielded()
      const;  // ours by the store, claimed by a peer
  // Those that are announced, as assign() wants them again.
  [[nodiscard]] std::vector<core::OwnedEip> served() const;
  [[nodiscard]] bool handing_over() const { return !handing_over_.empty(); }
  [[nodiscard]] bool owns(const model::Address& eip) const { return owned_.contains(eip); }
  [[nodiscard]] std::size_t owned_count() const { return owned_.size(); }

 private:
  struct Held {
    std::uint32_t id = 0;
    bool moving_in = false;
    bool probe_first = true;
    bool yielded = false;
    std::int64_t realised_ms = 0;  // 0: not programmed yet
  };

  void publish(std::int64_t now_ms);
  [[nodiscard]] bool is_published(const model::Address& address) const;

  AnnouncerPort& announcer_;
  std::map<model::Address, Held> owned_;
  std::map<model::Address, std::int64_t> handing_over_;  // until
  std::map<model::Address, std::int64_t> leaving_;       // forget at
  std::vector<net::AnnouncedEip> published_;
};

}  // namespace egw::runtime
