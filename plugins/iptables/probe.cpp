// probe(): whether programs and kernel can carry the datapath. Changes nothing: rules are only
// tried
// (--test), sets are asked for by type.
#include "common/probe.hpp"

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

bool look_at_tools(const Config& config, const sdk::NodeConfig& node, sdk::ProbeSink& out) {
  const auto choice = Xtables::choose(config.backend);
  if (!choice) {
    out.finding(false, "Iptables", choice.status().text());
    return false;
  }
  bool usable = true;
  out.finding(
      true, "Iptables",
      "backend " + std::string(word(choice.value().backend)) + ": " + choice.value().reason);
  auto ipset = Ipset::open();
  for (const Table t : common::kFamilies) {
    if (!common::enables(node, t)) continue;
    const std::string& program = choice.value().programs.restore[static_cast<std::size_t>(t)];
    const Finished tried = run({program, "--test", "--noflush", "--wait", "1"}, trial(t),
                               std::chrono::milliseconds(2000));
    out.finding(tried.ok(), "IptablesRules",
                tried.ok() ? program + " takes our kinds of rules"
                           : program + ": " + tried.why() +
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
    usable = usable && tried.ok();
  }
  if (usable) out.finding(true, "Ipset", "hash:ip and hash:net with skbinfo are there");
  return usable;
}

}  // namespace

sdk::Status IptablesDatapath::probe(std::string_view text, const sdk::NodeConfig& node,
                                    sdk::ProbeSink& out) {
  const Config config = parse_config(text);
  return common::probe_host({"iptables", config.rule_preference, kFrontRules,
                             [&] { return look_at_tools(config, node, out); }},
                            node, out);
}

}  // namespace egw::iptables
