#include "xtables.hpp"

#include <fcntl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <thread>

#include "common/netlink.hpp"

namespace egw::iptables {
namespace {

constexpr std::chrono::milliseconds kSaveDeadline{10000}, kRestoreDeadline{20000};
constexpr std::chrono::milliseconds kVersionDeadline{2000};
// What iptables does if nothing in its environment says otherwise; ours is empty.
constexpr const char* kLockFile = "/run/xtables.lock";
constexpr int kResourceProblem = 4;  // its exit code

// Owned by root and writable by nobody else: what we are about to run as root.
std::string find_program(const std::string& name) {
  for (const char* folder : {"/usr/sbin/", "/sbin/", "/usr/bin/", "/usr/local/sbin/"}) {
    std::string path = folder + name;
    struct stat about {};
    if (::stat(path.c_str(), &about) != 0 || !S_ISREG(about.st_mode)) continue;
    if (about.st_uid != 0 || (about.st_mode & (S_IWGRP | S_IWOTH)) != 0) continue;
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return {};
}

// "iptables v1.8.9 (nf_tables)"; programs before 1.8 say nothing and are legacy.
bool is_of(const std::string& program, Backend backend) {
  const Finished said = run({program, "--version"}, {}, kVersionDeadline);
  const bool nft = said.out.find("nf_tables") != std::string::npos;
  return said.ok() && nft == (backend == Backend::kNft);
}

std::optional<Programs> programs_of(Backend backend) {
  Programs out;
  for (const Table t : common::kFamilies) {
    const std::string base = t == Table::kIp ? "iptables" : "ip6tables";
    for (const auto& [what, to] :
         {std::pair{"-save", &out.save[index(t)]}, std::pair{"-restore", &out.restore[index(t)]}}) {
      *to = find_program(base + "-" + std::string(word(backend)) + what);
      if (!to->empty()) continue;
      *to = find_program(base + what);
      if (to->empty() || !is_of(*to, backend)) return std::nullopt;
    }
  }
  return out;
}

HeldRules held_by(const Programs& programs) {
  HeldRules out;
  for (const std::string& program : programs.save) {
    const Finished said = run({program}, {}, kSaveDeadline);
    if (!said.ok()) continue;
    out.read = true;
    std::string_view rest = said.out;
    while (!rest.empty()) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(rest.size(), line.size() + 1));
      if (line.rfind(":KUBE-IPTABLES-HINT", 0) == 0 || line.rfind(":KUBE-KUBELET-CANARY", 0) == 0) {
        out.kubernetes = true;
      }
      const bool ours = line.find("egw-") != std::string_view::npos ||
                        line.find(kChainPrefix) != std::string_view::npos;
      if (line.rfind("-A ", 0) == 0 && !ours) ++out.others;
    }
  }
  return out;
}

// Without them nfnetlink has nobody to ask.
bool kernel_has_nftables() {
  auto socket = common::NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket) return true;
  common::Message m(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, 0);
  m.header(nfgenmsg{});
  const int err = socket->get(m, [](const nlmsghdr*) {});
  return err != EINVAL && err != EOPNOTSUPP && err != EPROTONOSUPPORT;
}

template <class Each>
void each_line(std::string_view text, const Each& each) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    each(line);
  }
}

}  // namespace

std::string_view word(Xt table) {
  switch (table) {
    case Xt::kRaw:
      return "raw";
    case Xt::kMangle:
      return "mangle";
    case Xt::kNat:
      break;
  }
  return "nat";
}

std::array<XtSaved, 3> parse_saved(std::string_view text) {
  std::array<XtSaved, 3> out;
  XtSaved* table = nullptr;
  each_line(text, [&](std::string_view line) {
    if (line.empty()) return;
    if (line[0] == '*') {
      table = nullptr;
      for (const Xt t : kXtTables) {
        if (line.substr(1) == word(t)) table = &out[static_cast<std::size_t>(t)];
      }
      return;
    }
    if (table == nullptr) return;
    const auto ours = [](std::string_view name) { return name.rfind(kChainPrefix, 0) == 0; };
    if (line[0] == ':') {
      const std::string_view name = line.substr(1, line.find(' ') - 1);
      if (ours(name)) table->chains[std::string(name)];
      return;
    }
    if (line.rfind("-A ", 0) != 0) return;
    line.remove_prefix(3);
    const std::string name(line.substr(0, line.find(' ')));
    const std::string_view rule =
        line.size() > name.size() ? line.substr(name.size() + 1) : std::string_view();
    if (ours(name)) {
      table->chains[name].emplace_back(rule);
      return;
    }
    const std::size_t position = ++table->rules[name];
    const auto target = rule.rfind("-j ");
    if (target != std::string_view::npos && ours(rule.substr(target + 3))) {
      table->jumps[name].push_back({std::string(rule), position});
    }
  });
  return out;
}

Drops parse_drops(std::string_view text) {
  constexpr std::string_view kMark = "--comment egw-", kAppend = "] -A ";
  Drops out;
  each_line(text, [&](std::string_view line) {
    const auto mark = line.find(kMark);
    const auto append = line.find(kAppend);
    if (line.empty() || line[0] != '[' || mark == std::string_view::npos || append > mark) return;
    const std::string_view chain = line.substr(append + kAppend.size());
    const std::string_view reason = line.substr(mark + kMark.size());
    out[{std::string(chain.substr(0, chain.find(' '))),
         std::string(reason.substr(0, reason.find(' ')))}] +=
        std::strtoull(std::string(line.substr(1, 24)).c_str(), nullptr, 10);
  });
  return out;
}

void DropTally::add(const Drops& now) {
  for (auto at = last_.begin(); at != last_.end();) {
    const auto still = now.find(at->first);
    const bool anew = still == now.end() || still->second < at->second;
    if (anew) before_[at->first.reason] += at->second;
    at = anew ? last_.erase(at) : std::next(at);
  }
  for (const auto& [rule, packets] : now) last_[rule] = packets;
}

std::map<std::string, std::uint64_t> DropTally::by_reason() const {
  auto out = before_;
  for (const auto& [rule, packets] : last_) out[rule.reason] += packets;
  return out;
}

bool kernel_has(Table family) {
  const int fd = ::socket(common::address_family(family), SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno != EAFNOSUPPORT;
  ::close(fd);
  return true;
}

bool legacy_table_exists(Table t, Xt table) {
  std::ifstream names(std::string("/proc/thread-self/net/") +
                      (t == Table::kIp ? "ip_tables_names" : "ip6_tables_names"));
  for (std::string name; std::getline(names, name);) {
    if (name == word(table)) return true;
  }
  return false;
}

namespace {

std::size_t rules_of_others(const XtSaved& saved, const std::string& chain) {
  const auto all = saved.rules.find(chain);
  const auto ours = saved.jumps.find(chain);
  return (all == saved.rules.end() ? 0 : all->second) -
         (ours == saved.jumps.end() ? 0 : ours->second.size());
}

// The chain that a rule of the kernel's own chains leads to.
std::string target_of(const std::string& rule) {
  const auto at = rule.rfind("-j ");
  return at == std::string::npos ? rule : rule.substr(at);
}

}  // namespace

bool jumps_in_place(const XtRules& wanted, const XtSaved& saved) {
  std::map<std::string, std::vector<const Jump*>> chains;
  for (const bool last : {false, true}) {
    for (const Jump& j : wanted.jumps) {
      if (j.last == last) chains[j.chain].push_back(&j);
    }
  }
  for (const auto& [chain, places] : saved.jumps) chains[chain];
  for (auto& [chain, jumps] : chains) {
    const auto at = saved.jumps.find(chain);
    const std::size_t ours = at == saved.jumps.end() ? 0 : at->second.size();
    const std::size_t others = rules_of_others(saved, chain);
    if (ours != jumps.size() && others == 0) {
      jumps.erase(
          std::remove_if(jumps.begin(), jumps.end(), [](const Jump* j) { return j->again; }),
          jumps.end());
    }
    if (ours != jumps.size()) return false;
    for (std::size_t i = 0; i < ours; ++i) {
      const XtSaved::Place& is = at->second[i];
      if (is.position != i + 1 + (jumps[i]->last ? others : 0)) return false;
      if (target_of(is.rule) != target_of(jumps[i]->rule)) return false;
    }
  }
  return true;
}

std::string text_of(Xt table, const XtRules& wanted, const XtSaved& saved, const XtChange& change) {
  if (change.chains.empty() && change.gone.empty() && !change.jumps) return {};
  std::string out = "*" + std::string(word(table)) + "\n";
  for (const auto& [name, rules] : change.chains) out += ":" + name + " - [0:0]\n";
  if (change.jumps) {
    // By what they say: where they stand now nobody knows who has not held the lock since.
    for (const auto& [chain, places] : saved.jumps) {
      for (const XtSaved::Place& place : places) out += "-D " + chain + " " + place.rule + "\n";
    }
    std::map<std::string, std::size_t> next;
    for (const Jump& j : wanted.jumps) {
      if (j.again && rules_of_others(saved, j.chain) == 0) continue;
      if (j.last) {
        out += "-A " + j.chain + " " + j.rule + "\n";
      } else {
        out += "-I " + j.chain + " " + std::to_string(++next[j.chain]) + " " + j.rule + "\n";
      }
    }
  }
  for (const auto& [name, rules] : change.chains) {
    for (const std::string& rule : rules) out += "-A " + name + " " + rule + "\n";
  }
  for (const std::string& name : change.gone) out += "-F " + name + "\n";
  for (const std::string& name : change.gone) out += "-X " + name + "\n";
  return out + "COMMIT\n";
}

std::pair<Backend, std::string> decide(const HeldRules& nft, const HeldRules& legacy) {
  if (!nft.read && legacy.read) {
    return {Backend::kLegacy, "the nft programs do not run on this kernel"};
  }
  if (nft.kubernetes) return {Backend::kNft, "Kubernetes' chains are in nft"};
  if (legacy.kubernetes) return {Backend::kLegacy, "Kubernetes' chains are in legacy"};
  std::string counts = "others have " + std::to_string(nft.others) + " rules in nft, " +
                       std::to_string(legacy.others) + " in legacy";
  return {legacy.others > nft.others ? Backend::kLegacy : Backend::kNft, std::move(counts)};
}

sdk::Outcome<Choice> Xtables::choose(Backend wanted) {
  const auto nft = wanted == Backend::kLegacy ? std::nullopt : programs_of(Backend::kNft);
  const auto legacy = wanted == Backend::kNft ? std::nullopt : programs_of(Backend::kLegacy);
  if (!nft && !legacy) {
    const std::string kind =
        wanted == Backend::kAuto ? "" : " of the " + std::string(word(wanted)) + " backend";
    return sdk::fail(sdk::Code::kUnsupported,
                     "iptables-save, iptables-restore, ip6tables-save and ip6tables-restore" +
                         kind +
                         " are not all in /usr/sbin, /sbin or /usr/bin, owned by root; install "
                         "iptables",
                     "iptables");
  }
  if (wanted != Backend::kAuto) {
    return Choice{wanted, wanted == Backend::kNft ? *nft : *legacy, "backendMode says so"};
  }
  if (!legacy) return Choice{Backend::kNft, *nft, "only the nft programs are installed"};
  if (!nft) return Choice{Backend::kLegacy, *legacy, "only the legacy programs are installed"};
  auto [backend, reason] = decide(held_by(*nft), held_by(*legacy));
  return Choice{backend, backend == Backend::kNft ? *nft : *legacy, std::move(reason)};
}

std::string Xtables::save(Table t, Xt table, bool counters) const {
  if (choice_.backend == Backend::kLegacy && !legacy_table_exists(t, table)) return {};
  std::vector<std::string> arguments{choice_.programs.save[index(t)], "-t",
                                     std::string(word(table))};
  if (counters) arguments.emplace_back("-c");
  Finished said = run(arguments, {}, kSaveDeadline);
  if (!said.ok()) {
    // Its programs fail there, and there is nothing that they could read.
    if (choice_.backend == Backend::kNft && !kernel_has_nftables()) return {};
    throw sdk::Failure(sdk::Code::kUnavailable,
                       "cannot read table " + std::string(word(table)) + ": " + said.why(),
                       arguments[0], said.error);
  }
  return std::move(said.out);
}

std::array<XtSaved, 3> Xtables::saved(Table t) const {
  std::string all;
  for (const Xt table : kXtTables) all += save(t, table, false);
  return parse_saved(all);
}

Drops Xtables::drops(Table t) const {
  Drops out;
  for (const Xt table : kXtTables) {
    for (const auto& [rule, packets] : parse_drops(save(t, table, true))) {
      out[{std::string(word(table)) + " " + rule.chain, rule.reason}] = packets;
    }
  }
  return out;
}

sdk::Status Xtables::restore(const std::array<std::string, 2>& texts, unsigned patience) const {
  std::array<Finished, 2> results;
  const auto one = [&](Table t) {
    results[index(t)] =
        run({choice_.programs.restore[index(t)], "--noflush", "--wait", std::to_string(patience)},
            texts[index(t)], kRestoreDeadline);
  };
  {
    std::jthread other;
    const bool both = !texts[0].empty() && !texts[1].empty();
    // With one lock for all they would wait for each other.
    const bool beside = both && choice_.backend != Backend::kLegacy;
    if (beside) other = std::jthread([&] { one(Table::kIp6); });
    if (!texts[0].empty()) one(Table::kIp);
    if (!beside && !texts[1].empty()) one(Table::kIp6);
  }
  for (const Table t : common::kFamilies) {
    const Finished& r = results[index(t)];
    if (texts[index(t)].empty() || r.ok()) continue;
    const std::string& program = choice_.programs.restore[index(t)];
    if (r.error == 0 && r.status == kResourceProblem &&
        r.err.find("xtables lock") != std::string::npos) {
      return sdk::fail(sdk::Code::kUnavailable,
                       "another program holds iptables' lock, " + std::string(kLockFile) +
                           ": see who has it open (fuser -v)",
                       program);
    }
    return sdk::fail(sdk::Code::kInternal, "refused the rules: " + r.why(), program, r.error);
  }
  return sdk::ok();
}

bool Xtables::locked() const {
  if (choice_.backend != Backend::kLegacy) return false;
  const int fd = ::open(kLockFile, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool held = ::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(fd);
  return held;
}

sdk::Status Xtables::await_lock(unsigned patience) const {
  if (!locked()) return sdk::ok();
  for (const Table t : common::kFamilies) {
    for (const Xt table : kXtTables) {
      if (!legacy_table_exists(t, table)) continue;
      std::array<std::string, 2> texts;
      texts[index(t)] = "*" + std::string(word(table)) + "\nCOMMIT\n";
      return restore(texts, patience);
    }
  }
  return sdk::ok();  // there is nothing to write
}

}  // namespace egw::iptables
