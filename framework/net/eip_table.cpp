// The states of the EIPs that are announced: see eip_table.hpp and announcer.hpp.
#include "egw/net/eip_table.hpp"

#include <algorithm>
#include <utility>

namespace egw::net {

namespace {
constexpr std::size_t kProbes = 2;

// "EIP a is" or "EIPs a, b, c and 7 more are".
std::string list(const std::vector<model::Address>& addresses) {
  if (addresses.size() == 1) return "EIP " + addresses.front().to_string() + " is";
  constexpr std::size_t kShown = 5;
  std::string out = "EIPs ";
  for (std::size_t i = 0; i < std::min(kShown, addresses.size()); ++i) {
    if (i != 0) out += ", ";
    out += addresses[i].to_string();
  }
  if (addresses.size() > kShown) {
    out += " and " + std::to_string(addresses.size() - kShown) + " more";
  }
  return out + " are";
}

// The parts of `lost` that are not in `kept`.
void append_rest(const model::Prefix& lost, const model::Prefix& kept,
                 std::vector<model::Prefix>& out) {
  if (kept.contains(lost)) return;
  if (!lost.contains(kept)) return out.push_back(lost);
  const unsigned length = lost.length() + 1;
  const auto first = lost.first();
  const auto half = static_cast<unsigned __int128>(1) << (first.bits() - length);
  append_rest({first, length}, kept, out);
  append_rest({model::Address::from_value(first.family(), first.value() + half), length}, kept,
              out);
}

}  // namespace

const PortInfo* EipTable::port(unsigned index) const {
  const auto found = std::find_if(ports_.begin(), ports_.end(),
                                  [index](const auto& port) { return port.index == index; });
  return found == ports_.end() ? nullptr : &*found;
}

const std::vector<unsigned>* EipTable::ports_of(const model::Address& address) const {
  const auto found = eips_.find(address);
  return found == eips_.end() ? nullptr : &found->second.ports;
}

void EipTable::schedule(const model::Address& address, Eip& eip, TimePoint when) {
  if (eip.due != TimePoint::max()) timers_.erase({eip.due, address});
  eip.due = when;
  if (when != TimePoint::max()) timers_.emplace(when, address);
}

TimePoint EipTable::next() const {
  return timers_.empty() ? TimePoint::max() : timers_.begin()->first;
}

void EipTable::set(const std::vector<AnnouncedEip>& eips, TimePoint now) {
  news_ = true;
  std::set<model::Address> wanted;
  for (const auto& eip : eips) {
    if (eip.address) wanted.insert(eip.address);
  }
  for (auto it = eips_.begin(); it != eips_.end();) {
    if (wanted.count(it->first) != 0) {
      ++it;
      continue;
    }
    schedule(it->first, it->second, TimePoint::max());
    it = eips_.erase(it);
  }
  for (const auto& wanted_eip : eips) {
    if (!wanted_eip.address) continue;
    const auto [found, added] = eips_.try_emplace(wanted_eip.address);
    if (!added) continue;
    found->second.probe = wanted_eip.probe_first;
    assign_ports(found->first, found->second);
    begin(found->first, found->second, now);
  }
}

std::vector<unsigned> EipTable::choose_ports(const model::Address& address, bool& fallback) const {
  std::vector<unsigned> out;
  fallback = false;
  for (const auto& port : ports_) {
    if (std::any_of(port.prefixes.begin(), port.prefixes.end(),
                    [&](const auto& prefix) { return prefix.contains(address); })) {
      out.push_back(port.index);
    }
  }
  if (!out.empty()) return out;
  for (const auto& port : ports_) {
    if (address.is_v4() ? port.default_v4 : port.default_v6) {
      fallback = true;
      out.push_back(port.index);
    }
  }
  return out;
}

void EipTable::assign_ports(const model::Address& address, Eip& eip) {
  bool fallback = false;
  auto ports = choose_ports(address, fallback);
  if (eip.assigned && ports == eip.ports) return;
  eip.assigned = true;
  eip.ports = std::move(ports);
  if (eip.ports.empty()) {
    unannounced_.push_back(address);
  } else if (fallback) {
    by_default_[port(eip.ports.front())->name].push_back(address);
  }
}

std::vector<std::string> EipTable::take_warnings() {
  std::vector<std::string> out;
  if (!unannounced_.empty()) {
    out.push_back(list(unannounced_) +
                  " not announced: no interface that is up has the subnet or a default route (see "
                  "feature.announcedInterfacesToExclude)");
    unannounced_.clear();
  }
  for (const auto& [name, addresses] : by_default_) {
    out.push_back(list(addresses) + " in no subnet of this node, announced on " + name +
                  ", which has the default route");
  }
  by_default_.clear();
  return out;
}

void EipTable::set_ports(std::vector<PortInfo> ports, TimePoint now) {
  if (ports == ports_) return;
  news_ = true;
  const std::vector<PortInfo> former = std::exchange(ports_, std::move(ports));
  std::map<unsigned, model::Mac> macs;
  for (const auto& port : former) macs.emplace(port.index, port.mac);
  note_lost(former);
  for (auto& [address, eip] : eips_) {
    const auto before = eip.ports;
    assign_ports(address, eip);
    const bool fresh = std::any_of(eip.ports.begin(), eip.ports.end(), [&](unsigned index) {
      return std::find(before.begin(), before.end(), index) == before.end();
    });
    const bool other_mac = std::any_of(eip.ports.begin(), eip.ports.end(), [&](unsigned index) {
      const auto old = macs.find(index);
      return old != macs.end() && old->second != port(index)->mac;
    });
    if (eip.ports.empty()) {
      suspend(address, eip);
    } else if (eip.state == State::kWaiting || (fresh && eip.state != State::kYielded)) {
      // Somebody may have taken it over on a link that we did not see.
      begin(address, eip, now);
    } else if (other_mac && eip.state == State::kActive) {
      activate(address, eip, now);
    }
  }
}

void EipTable::note_lost(const std::vector<PortInfo>& former) {
  for (const auto& port : former) {
    for (const auto& subnet : port.prefixes) lost_.try_emplace(subnet, port.name);
  }
  std::erase_if(lost_, [this](const auto& lost) {
    const model::Prefix& subnet = lost.first;
    return std::any_of(ports_.begin(), ports_.end(), [&](const PortInfo& port) {
      return port.name == lost.second ||
             std::any_of(port.prefixes.begin(), port.prefixes.end(),
                         [&](const auto& has) { return has.contains(subnet); });
    });
  });
}

std::vector<LostSubnet> EipTable::lost_subnets() const {
  std::vector<LostSubnet> out;
  for (const auto& [subnet, interface] : lost_) {
    std::vector<model::Prefix> parts{subnet};
    for (const PortInfo& port : ports_) {
      for (const model::Prefix& kept : port.prefixes) {
        std::vector<model::Prefix> rest;
        for (const model::Prefix& part : parts) append_rest(part, kept, rest);
        parts = std::move(rest);
      }
    }
    for (const model::Prefix& part : parts) out.push_back({part, interface});
  }
  return out;
}

std::vector<model::Address> EipTable::silent() const {
  const std::vector<LostSubnet> lost = lost_subnets();
  std::vector<model::Address> out;
  for (const auto& [address, eip] : eips_) {
    const auto& a = address;
    if (eip.ports.empty() || std::any_of(lost.begin(), lost.end(), [&](const LostSubnet& part) {
          return part.subnet.contains(a);
        })) {
      out.push_back(address);
    }
  }
  return out;
}

void EipTable::suspend(const model::Address& address, Eip& eip) {
  schedule(address, eip, TimePoint::max());
  if (eip.state == State::kYielded) return;
  if (eip.state == State::kActive) eip.probe = eip.returning = true;
  eip.state = State::kWaiting;
}

void EipTable::begin(const model::Address& address, Eip& eip, TimePoint now) {
  if (eip.state == State::kYielded) return;
  if (muted_ || eip.ports.empty()) return suspend(address, eip);
  if (eip.state == State::kActive) eip.probe = eip.returning = true;
  if (!eip.probe) return activate(address, eip, now);
  eip.state = State::kProbing;
  eip.since = now;
  eip.step = 0;
  schedule(address, eip, now);
}

void EipTable::activate(const model::Address& address, Eip& eip, TimePoint now) {
  eip.state = State::kActive;
  eip.given = !eip.returning;
  eip.probe = eip.returning = false;
  eip.since = now;
  eip.step = 0;
  const auto& plan = options_.announce_at;
  schedule(address, eip, plan.empty() ? TimePoint::max() : now + plan.front());
}

void EipTable::yield(const model::Address& address, Eip& eip) {
  schedule(address, eip, TimePoint::max());
  eip.state = State::kYielded;
  ++yielded;
}

void EipTable::confirm(const model::Address& address, TimePoint now) {
  const auto found = eips_.find(address);
  if (found == eips_.end() || found->second.state != State::kYielded) return;
  auto& eip = found->second;
  eip.state = State::kWaiting;
  eip.probe = eip.returning = false;  // the store has decided: claim it back
  begin(address, eip, now);
}

void EipTable::mute(bool on, TimePoint now) {
  if (muted_ == on) return;
  muted_ = on;
  for (auto& [address, eip] : eips_) {
    if (on) {
      suspend(address, eip);
    } else {
      begin(address, eip, now);
    }
  }
}

std::vector<EipTable::Due> EipTable::due(TimePoint now, std::size_t limit) {
  std::vector<Due> out;
  while (out.size() < limit && !timers_.empty() && timers_.begin()->first <= now) {
    const auto address = timers_.begin()->second;
    auto& eip = eips_.at(address);
    switch (eip.state) {
      case State::kBlocked:
        eip.state = State::kWaiting;
        begin(address, eip, now);
        break;
      case State::kProbing:
        if (eip.step == kProbes) {
          activate(address, eip, now);
          break;
        }
        if (eip.step == 0) eip.since = now;  // the wait begins when the question is asked
        ++eip.step;
        schedule(address, eip,
                 eip.since + options_.probe_wait * static_cast<int>(eip.step) / int{kProbes});
        out.push_back({address, Send::kProbe, eip.ports});
        break;
      case State::kActive:
        ++eip.step;
        schedule(address, eip,
                 eip.step < options_.announce_at.size() ? eip.since + options_.announce_at[eip.step]
                                                        : TimePoint::max());
        out.push_back({address, Send::kAnnouncement, eip.ports});
        break;
      case State::kWaiting:
      case State::kYielded:
        schedule(address, eip, TimePoint::max());
        break;
    }
  }
  return out;
}

void EipTable::again(const Due& item, TimePoint when) {
  const auto found = eips_.find(item.address);
  if (found == eips_.end()) return;
  auto& eip = found->second;
  const auto wanted = item.what == Send::kProbe ? State::kProbing : State::kActive;
  if (eip.state != wanted || eip.step == 0) return;
  --eip.step;
  schedule(item.address, eip, when);
}

void EipTable::tell(Eip& eip, TimePoint now, Outcome& out) {
  ++conflicts;
  if (eip.ever_told && eip.told_mac == out.claim.mac && now - eip.told < options_.defend_interval) {
    return;
  }
  eip.ever_told = true;
  eip.told = now;
  eip.told_mac = out.claim.mac;
  out.tell = true;
}

void EipTable::on_probe_answer(Eip& eip, const model::Address& address, bool gateway, TimePoint now,
                               Outcome& out) {
  if (!gateway) {
    tell(eip, now, out);
    eip.state = State::kBlocked;
    schedule(address, eip, now + options_.defend_interval);
  } else if (eip.returning) {
    out.tell = true;
    yield(address, eip);
  } else {
    activate(address, eip, now);  // the former owner, which has not heard yet
  }
}

void EipTable::on_claim(const model::Address& address, Eip& eip, TimePoint now, Outcome& out) {
  if (out.claim.from_gateway) {
    // What the former owner said before it heard of us is no claim against the store's decision.
    if (eip.state == State::kWaiting && !eip.returning) return;
    if (eip.state == State::kActive && eip.given && now - eip.since < options_.probe_wait) return;
    out.tell = true;
    yield(address, eip);
    return;
  }
  tell(eip, now, out);
  if (eip.state != State::kActive) return;
  if (eip.ever_defended && now - eip.defended < options_.defend_interval) return;
  eip.ever_defended = true;
  eip.defended = now;
  out.announce = true;
}

EipTable::Outcome EipTable::on_message(unsigned port_index, const NeighbourMessage& message,
                                       TimePoint now) {
  Outcome out;
  const auto* in = port(port_index);
  if (in == nullptr) return out;
  for (const auto& own : ports_) {
    if (own.mac == message.from || own.mac == message.frame_source) return out;
  }
  // A probe asks for the address without having one. Two who probe at once have a conflict.
  const bool probe = message.asks && !message.source;
  const auto& concerned = message.claimed ? message.claimed : message.target;
  const auto found = eips_.find(concerned);
  const bool gateway = gateway_macs_.count(message.from) != 0;
  if (found != eips_.end() && (message.claimed || (probe && !gateway))) {
    auto& [address, eip] = *found;
    out.claim = {address, message.from, in->name, gateway};
    if (eip.state == State::kProbing) {
      on_probe_answer(eip, address, gateway, now, out);
    } else if (eip.state == State::kActive || eip.state == State::kWaiting) {
      on_claim(address, eip, now, out);
    }
  }
  if (message.asks && message.target) {
    const auto asked = eips_.find(message.target);
    if (asked != eips_.end() && asked->second.state == State::kActive &&
        message.claimed != message.target) {
      const auto& ports = asked->second.ports;
      out.answer = std::find(ports.begin(), ports.end(), port_index) != ports.end();
    }
  }
  return out;
}

std::map<unsigned, std::set<model::Address>> EipTable::groups() const {
  std::map<unsigned, std::set<model::Address>> out;
  for (const auto& port : ports_) out[port.index];
  for (const auto& [address, eip] : eips_) {
    if (!address.is_v6()) continue;
    for (const auto index : eip.ports) out[index].insert(solicited_node_group(address));
  }
  return out;
}

}  // namespace egw::net
