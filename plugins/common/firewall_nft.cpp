// Reading nftables tables of others by netlink: chains, rules and the sets that their rules look
// into. What a rule says is firewall_expr.cpp's business.
#include "firewall_nft.hpp"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <nftables/libnftables.h>

#include <algorithm>
#include <cerrno>
#include <functional>

#include "firewall_expr.hpp"
#include "layout.hpp"
#include "rtnl.hpp"

namespace egw::common {
namespace {

constexpr std::size_t kMostElements = 4096;  // of a set that is looked into

Message nft_message(int type, std::uint8_t family) {
  nfgenmsg g{};
  g.nfgen_family = family;
  g.version = NFNETLINK_V0;
  Message m((NFNL_SUBSYS_NFTABLES << 8) | type, 0);
  m.header(g);
  return m;
}

// 0 or the errno, but for what has gone since it was listed.
void must(int err, const char* what) {
  if (err != 0 && err != ENOENT) {
    throw sdk::Failure(sdk::Code::kUnavailable, "cannot be read from the kernel",
                       std::string("nftables ") + what, err);
  }
}

void each_in(const nlattr* list, const std::function<void(const nlattr*)>& act) {
  if (list == nullptr) return;
  int rest = nla_len(list);
  for (const auto* e = static_cast<const nlattr*>(nla_data(list)); nla_ok(e, rest);
       e = nla_next(e, &rest)) {
    act(e);
  }
}

class Reader {
 public:
  Reader(NetlinkSocket& nfnetlink, NetlinkSocket& route) : socket_(nfnetlink) {
    for (const Link& link : all_links(route)) {
      links_[static_cast<std::uint32_t>(link.index)] = link.name;
    }
  }

  std::vector<FirewallTable> tables();

 private:
  struct Place {
    std::uint8_t family;
    std::string table;
  };
  void read_chains(const Place& at, FirewallTable& out);
  void read_rules(const Place& at, FirewallTable& out);
  const std::vector<Element>* elements(const Place& at, const std::string& set);

  NetlinkSocket& socket_;
  std::map<std::uint32_t, std::string> links_;
  std::map<std::string, std::vector<Element>> sets_;  // of the table being read
};

std::vector<FirewallTable> Reader::tables() {
  std::vector<std::pair<Place, FirewallTable>> found;
  Message m = nft_message(NFT_MSG_GETTABLE, NFPROTO_UNSPEC);
  const auto each = [&](const nlmsghdr* h) {
    const auto family = static_cast<const nfgenmsg*>(nlmsg_data(h))->nfgen_family;
    const std::string name(Attributes(h, sizeof(nfgenmsg), NFTA_TABLE_MAX).text(NFTA_TABLE_NAME));
    static const std::map<std::uint8_t, std::string> kWords{
        {NFPROTO_INET, "inet"}, {NFPROTO_IPV4, "ip"},       {NFPROTO_IPV6, "ip6"},
        {NFPROTO_ARP, "arp"},   {NFPROTO_NETDEV, "netdev"}, {NFPROTO_BRIDGE, "bridge"}};
    const auto word = kWords.find(family);
    const bool known = name == kTable || name == kTableBesideIptables;
    const bool ours =
        known && (family == NFPROTO_IPV4 || family == NFPROTO_IPV6 || family == NFPROTO_NETDEV);
    if (word == kWords.end() || ours) return;
    const bool inet = family == NFPROTO_INET;
    found.push_back({{family, name},
                     {"nftables",
                      word->second,
                      name,
                      inet || family == NFPROTO_IPV4,
                      inet || family == NFPROTO_IPV6,
                      {}}});
  };
  const int err = socket_.dump(m, each, [&] { found.clear(); });
  // A kernel without nf_tables: nfnetlink has nobody to ask, or is not there itself.
  if (err == EINVAL || err == EOPNOTSUPP || err == EPROTONOSUPPORT) return {};
  must(err, "tables");
  std::vector<FirewallTable> out;
  for (auto& [place, table] : found) {
    sets_.clear();
    read_chains(place, table);
    read_rules(place, table);
    out.push_back(std::move(table));
  }
  return out;
}

void Reader::read_chains(const Place& at, FirewallTable& out) {
  Message m = nft_message(NFT_MSG_GETCHAIN, at.family);
  const auto each = [&](const nlmsghdr* h) {
    const Attributes a(h, sizeof(nfgenmsg), NFTA_CHAIN_MAX);
    if (a.text(NFTA_CHAIN_TABLE) != at.table) return;
    FirewallChain& chain = out.chains[std::string(a.text(NFTA_CHAIN_NAME))];
    if (!a.has(NFTA_CHAIN_HOOK)) return;
    const Attributes hook(a[NFTA_CHAIN_HOOK], NFTA_HOOK_MAX);
    chain.policy_drop = a.be32(NFTA_CHAIN_POLICY) == NF_DROP;
    if (a.text(NFTA_CHAIN_TYPE) != "filter" || !(out.v4 || out.v6)) return;
    const std::uint32_t number = hook.be32(NFTA_HOOK_HOOKNUM);
    if (number == NF_INET_LOCAL_IN) chain.hook = FilterHook::kInput;
    if (number == NF_INET_FORWARD) chain.hook = FilterHook::kForward;
  };
  must(socket_.dump(m, each, [&] { out.chains.clear(); }), "chains");
}

void Reader::read_rules(const Place& at, FirewallTable& out) {
  // The messages are kept: looking into sets needs the socket that the dump is using.
  struct Raw {
    std::string chain, expressions;
    std::uint64_t handle;
  };
  std::vector<Raw> raw;
  Message m = nft_message(NFT_MSG_GETRULE, at.family);
  m.text(NFTA_RULE_TABLE, at.table);
  const auto each = [&](const nlmsghdr* h) {
    const Attributes a(h, sizeof(nfgenmsg), NFTA_RULE_MAX);
    if (a.text(NFTA_RULE_TABLE) != at.table || !a.has(NFTA_RULE_EXPRESSIONS)) return;
    const nlattr* list = a[NFTA_RULE_EXPRESSIONS];
    std::uint64_t handle = 0;
    for (const char c : a.bytes(NFTA_RULE_HANDLE))
      handle = handle << 8U | static_cast<unsigned char>(c);
    raw.push_back({std::string(a.text(NFTA_RULE_CHAIN)),
                   std::string(reinterpret_cast<const char*>(list), list->nla_len), handle});
  };
  must(socket_.dump(m, each, [&] { raw.clear(); }), "rules");
  const RuleReader::Context context{at.family, links_,
                                    [&](const std::string& set) { return elements(at, set); }};
  for (const Raw& r : raw) {
    FirewallRule rule;
    rule.handle = r.handle;
    rule.name = "rule handle " + std::to_string(r.handle);
    RuleReader reader(context, rule);
    each_in(reinterpret_cast<const nlattr*>(r.expressions.data()), [&](const nlattr* e) {
      const Attributes expression(e, NFTA_EXPR_MAX);
      reader.expression(expression.text(NFTA_EXPR_NAME), expression[NFTA_EXPR_DATA]);
    });
    FirewallChain& chain = out.chains[r.chain];
    const bool intervals = std::any_of(reader.verdicts.begin(), reader.verdicts.end(),
                                       [](const Element& e) { return e.end; });
    if (reader.verdicts.empty() || intervals) {
      chain.rules.push_back(std::move(rule));
      continue;
    }
    for (const Element& e : reader.verdicts) {
      FirewallRule one = rule;
      Condition c = reader.key_condition();
      reader.admit_all(reader.verdict_key, c, {e});
      one.conditions.push_back(std::move(c));
      one.verdict = e.verdict;
      one.target = e.target;
      chain.rules.push_back(std::move(one));
    }
  }
}

const std::vector<Element>* Reader::elements(const Place& at, const std::string& set) {
  if (const auto known = sets_.find(set); known != sets_.end()) {
    return known->second.empty() ? nullptr : &known->second;
  }
  std::vector<Element>& out = sets_[set];
  Message m = nft_message(NFT_MSG_GETSETELEM, at.family);
  m.text(NFTA_SET_ELEM_LIST_TABLE, at.table).text(NFTA_SET_ELEM_LIST_SET, set);
  bool whole = true;
  const auto each = [&](const nlmsghdr* h) {
    const Attributes a(h, sizeof(nfgenmsg), NFTA_SET_ELEM_LIST_MAX);
    each_in(a[NFTA_SET_ELEM_LIST_ELEMENTS], [&](const nlattr* e) {
      const Attributes element(e, NFTA_SET_ELEM_MAX);
      Element one;
      one.key = value_of(element[NFTA_SET_ELEM_KEY]);
      const std::uint32_t flags = element.be32(NFTA_SET_ELEM_FLAGS);
      one.end = (flags & NFT_SET_ELEM_INTERVAL_END) != 0;
      // A catch-all, a concatenated range or too many: not looked into.
      whole = whole && element.has(NFTA_SET_ELEM_KEY) && !element.has(NFTA_SET_ELEM_KEY_END) &&
              out.size() < kMostElements;
      if (element.has(NFTA_SET_ELEM_DATA)) {
        one.verdict = verdict_of(element[NFTA_SET_ELEM_DATA], one.target);
      }
      if (whole) out.push_back(std::move(one));
    });
  };
  must(socket_.dump(m, each, [&] { out.clear(); }), "set");
  if (!whole) out.clear();
  return out.empty() ? nullptr : &out;
}

}  // namespace

std::vector<FirewallTable> read_nftables(NetlinkSocket& nfnetlink, NetlinkSocket& route) {
  return Reader(nfnetlink, route).tables();
}

std::string rule_text(const FirewallTable& table, std::string_view chain,
                      const FirewallRule& rule) {
  if (table.kind != "nftables" || rule.handle == 0) return {};
  nft_ctx* context = nft_ctx_new(NFT_CTX_DEFAULT);
  if (context == nullptr) return {};
  nft_ctx_output_set_flags(context, NFT_CTX_OUTPUT_HANDLE | NFT_CTX_OUTPUT_STATELESS);
  nft_ctx_buffer_output(context);
  nft_ctx_buffer_error(context);
  const std::string command =
      "list chain " + table.family + " " + table.name + " " + std::string(chain);
  std::string out;
  if (nft_run_cmd_from_buffer(context, command.c_str()) == 0) {
    const std::string text = nft_ctx_get_output_buffer(context);
    const std::string mark = " # handle " + std::to_string(rule.handle) + "\n";
    if (const auto end = text.find(mark); end != std::string::npos) {
      const auto begin = text.find_first_not_of("\t ", text.rfind('\n', end) + 1);
      out = text.substr(begin, std::min<std::size_t>(end - begin, 200));
    }
  }
  nft_ctx_free(context);
  return out;
}

}  // namespace egw::common
