// probe(): whether programs and kernel can carry the datapath. Changes nothing: rules are only
// tried (--test), those of the legacy backend in a network namespace that goes again, because even
// that makes its tables; sets are asked for by type.
#include "common/probe.hpp"

#include <sched.h>

#include <algorithm>
#include <optional>
#include <thread>

#include "datapath.hpp"

namespace egw::iptables {
namespace {

// One rule for each match and target that rules.cpp uses and that a kernel may lack. Matches and
// targets of sets need a set, and are not tried.
std::string trial(Table t) {
  const bool v4 = t == Table::kIp;
  return std::string("*raw\n:EGW-TRY - [0:0]\n-A EGW-TRY -j CT --zone-orig mark\n") +
         "-A EGW-TRY -m u32 --u32 \"0=0\" -j CT --notrack\nCOMMIT\n" +
         "*mangle\n:EGW-TRY - [0:0]\n-A EGW-TRY -m mark --mark 1/1 -j MARK --set-xmark 0/1\n" +
         "-A EGW-TRY -m connmark --mark 1/1 -j CONNMARK --restore-mark --nfmask 1 --ctmask 1 "
         "--right-shift-mark 1\n" +
         "-A EGW-TRY -m conntrack ! --ctstatus CONFIRMED -j RETURN\n" +
         "-A EGW-TRY -m addrtype --dst-type LOCAL -j RETURN\n" +
         "-A EGW-TRY -m mac --mac-source 02:00:00:00:00:01 -j RETURN\n" +
         "-A EGW-TRY -m bpf --bytecode \"1,6 0 0 0\" -m comment --comment egw-try -j RETURN\n" +
         "-A EGW-TRY -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1000\nCOMMIT\n" +
         "*nat\n:EGW-TRY - [0:0]\n-A EGW-TRY -j NETMAP --to " + (v4 ? "0.0.0.0/0" : "::/0") +
         "\n-A EGW-TRY -j SNAT --to-source " + (v4 ? "192.0.2.1" : "2001:db8::1") +
         "\n-A EGW-TRY -j NFQUEUE --queue-num 65535\nCOMMIT\n";
}

// Every packet of a node passes a legacy table that is there, even an empty one. Without an answer:
// this process may make no network namespace.
std::optional<Finished> try_rules(Backend backend, const std::string& program, Table t) {
  const auto attempt = [&] {
    return run({program, "--test", "--noflush", "--wait", "1"}, trial(t),
               std::chrono::milliseconds(2000));
  };
  const auto exists = [t](Xt table) { return legacy_table_exists(t, table); };
  if (backend == Backend::kNft || std::all_of(kXtTables.begin(), kXtTables.end(), exists)) {
    return attempt();
  }
  std::optional<Finished> out;
  std::thread([&] {
    // Of this thread alone, and of what it starts.
    if (::unshare(CLONE_NEWNET) == 0) out = attempt();
  }).join();
  return out;
}

// working: the backend that this process works with already, kAuto: none.
bool look_at_tools(const Config& config, Backend working, const sdk::NodeConfig& node,
                   sdk::ProbeSink& out) {
  const bool chosen = config.backend == Backend::kAuto && working != Backend::kAuto;
  const auto choice = Xtables::choose(chosen ? working : config.backend);
  if (!choice) {
    out.finding(false, "Iptables", choice.status().text());
    return false;
  }
  bool usable = true;
  out.finding(true, "Iptables",
              "backend " + std::string(word(choice.value().backend)) + ": " +
                  (chosen ? "in use" : choice.value().reason));
  auto ipset = Ipset::open();
  for (const Table t : common::kFamilies) {
    if (!common::enables(node, t)) continue;
    const std::string& program = choice.value().programs.restore[static_cast<std::size_t>(t)];
    const std::optional<Finished> tried = try_rules(choice.value().backend, program, t);
    const bool taken = !tried || tried->ok();
    out.finding(taken, "IptablesRules",
                !tried  ? program + ": not tried, which without CAP_SYS_ADMIN would make its tables"
                : taken ? program + " takes our kinds of rules"
                        : program + ": " + tried->why() +
                              "; load the kernel's modules for the match or target it names");
    for (const SetType type : {SetType::kAddresses, SetType::kPrefixes}) {
      const bool has = ipset && ipset->revision(type, t).has_value();
      const std::string name = type == SetType::kAddresses ? "hash:ip" : "hash:net";
      if (!has) {
        out.finding(false, "Ipset",
                    "the kernel has no " + name + " sets with skbinfo: load ip_set_hash_" +
                        name.substr(5) + " (Linux 3.19 or later)");
      }
      usable = usable && has;
    }
    usable = usable && taken;
  }
  if (usable) out.finding(true, "Ipset", "hash:ip and hash:net with skbinfo are there");
  return usable;
}

}  // namespace

sdk::Status IptablesDatapath::probe(std::string_view text, const sdk::NodeConfig& node,
                                    sdk::ProbeSink& out) {
  const Config config = parse_config(text);
  return common::probe_host({"iptables", config.rule_preference, kFrontRules,
                             [&] { return look_at_tools(config, working_, node, out); }},
                            node, out);
}

}  // namespace egw::iptables
