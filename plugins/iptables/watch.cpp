#include "watch.hpp"

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstring>

namespace egw::iptables {
namespace {

constexpr std::chrono::milliseconds kPause{500};

// The number of nftables' last transaction.
std::string nft_generation() {
  auto socket = common::NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket) return {};
  common::Message m(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, 0);
  m.header(nfgenmsg{});
  std::string out;
  socket->get(m, [&](const nlmsghdr* answer) {
    const common::Attributes a(answer, sizeof(nfgenmsg), NFTA_GEN_MAX);
    out = std::to_string(a.be32(NFTA_GEN_ID));
  });
  return out;
}

// Entries and bytes of each table.
std::string legacy_sizes() {
  std::string out;
  for (const Table t : common::kFamilies) {
    const int fd = ::socket(common::address_family(t), SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    if (fd < 0) {
      out += "- ";
      continue;  // a host without this family; the other one's tables are looked at all the same
    }
    for (const Xt table : kXtTables) {
      if (!legacy_table_exists(t, table)) {
        out += "- ";
        continue;
      }
      // The same layout in both families.
      static_assert(sizeof(ipt_getinfo) == sizeof(ip6t_getinfo));
      ipt_getinfo info{};
      const std::string_view name = word(table);
      std::memcpy(info.name, name.data(), name.size());
      socklen_t size = sizeof(info);
      const int level = t == Table::kIp ? static_cast<int>(SOL_IP) : static_cast<int>(SOL_IPV6);
      if (::getsockopt(fd, level, IPT_SO_GET_INFO, &info, &size) == 0) {
        out += std::to_string(info.num_entries) + "," + std::to_string(info.size) + " ";
      } else {
        out += "- ";
      }
    }
    ::close(fd);
  }
  return out;
}

}  // namespace

std::string difference(const XtRules& wanted, const Chains& learned, const XtSaved& saved) {
  for (const auto& [name, rules] : wanted.chains) {
    const auto at = saved.chains.find(name);
    if (at == saved.chains.end()) return "chain " + name + " removed";
    const auto known = learned.find(name);
    const bool same =
        known == learned.end() ? at->second.size() == rules.size() : at->second == known->second;
    if (!same) return "chain " + name + " changed";
  }
  for (const auto& [name, rules] : saved.chains) {
    if (wanted.chains.count(name) == 0) return "chain " + name + " added";
  }
  return jumps_in_place(wanted, saved) ? "" : "jumps to our chains moved or removed";
}

Watch::Watch(std::function<void(const std::string&)> drifted)
    : drifted_(std::move(drifted)), thread_([this] { run(); }) {}

Watch::~Watch() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Watch::pause() {
  const std::lock_guard lock(mutex_);
  ++round_;
  filters_.reset();
}

void Watch::watch(const Xtables& xtables, std::shared_ptr<const Filters> filters,
                  std::map<std::string, std::size_t> sets) {
  const std::lock_guard lock(mutex_);
  ++round_;
  xtables_.emplace(xtables.choice());
  filters_ = std::move(filters);
  sets_ = std::move(sets);
  answer_.clear();
}

void Watch::run() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kPause, [this] { return stop_; })) {
    if (!filters_) continue;
    try {
      look(lock);
    } catch (const sdk::Failure&) {
      // Asked again after the pause; health() and the next full change say what is wrong.
      if (!lock.owns_lock()) lock.lock();
    }
  }
}

std::string Watch::cheap_answer(Backend backend) {
  return backend == Backend::kNft ? nft_generation() : legacy_sizes();
}

void Watch::look(std::unique_lock<std::mutex>& lock) {
  const std::uint64_t round = round_;
  const auto filters = filters_;
  const auto sets = sets_;
  const Xtables xtables = *xtables_;
  const std::string before = answer_;
  lock.unlock();
  std::string what;
  auto ipset = Ipset::open();
  if (ipset) {
    std::string name;
    const auto headers = ipset->headers();
    for (const auto& [set, count] : sets) {
      const auto at = headers.find(set);
      if (at == headers.end() || at->second.elements != count || at->second.references == 0) {
        name = set;
      }
    }
    if (!name.empty()) what = "ipset " + name + " changed";
  }
  const std::string answer = cheap_answer(filters->backend);
  std::array<std::array<XtSaved, 3>, 2> saved;
  const bool read = what.empty() && answer != before;
  if (read) {
    for (const Table t : common::kFamilies) saved[index(t)] = xtables.saved(t);
  }
  lock.lock();
  if (round != round_ || stop_) return;  // a change of our own has come between
  answer_ = answer;
  for (const Table t : common::kFamilies) {
    for (std::size_t x = 0; read && what.empty() && x < kXtTables.size(); ++x) {
      what = difference(filters->rules[index(t)][x], filters->learned[index(t)][x],
                        saved[index(t)][x]);
    }
  }
  if (what.empty()) return;
  filters_.reset();  // said once; the full change that follows begins anew
  lock.unlock();
  drifted_(what);
  lock.lock();
}

}  // namespace egw::iptables
