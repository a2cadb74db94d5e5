#include "nft.hpp"

#include <dirent.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <malloc.h>
#include <nftables/libnftables.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "text.hpp"

namespace egw::common {
namespace {

constexpr std::size_t kMessageBytes = 48UL * 1024;  // a nest may have 64 KiB
constexpr std::size_t kElementOverhead = 64;
// The question that makes libnftables read least: tables and flowtables. For "list tables" it reads
// every element of every set and remembers them.
constexpr const char* kAsksLittle = "list flowtables";

Message nft_message(int type, Table t, int flags, std::size_t reserve = 512) {
  nfgenmsg g{};
  g.nfgen_family = nf_family(t);
  g.version = NFNETLINK_V0;
  Message m((NFNL_SUBSYS_NFTABLES << 8) | type, flags, reserve);
  m.header(g);
  return m;
}

[[noreturn]] void unreadable(std::string_view what, int err) {
  throw sdk::Failure(sdk::Code::kUnavailable, "cannot be read from the kernel",
                     "nftables " + std::string(what), err);
}

// The comment in a rule's user data (libnftnl: type, length, value; type 0 is the comment).
std::string_view comment_of(std::string_view userdata) {
  while (userdata.size() >= 2) {
    const auto type = static_cast<unsigned char>(userdata[0]);
    const auto length = static_cast<unsigned char>(userdata[1]);
    if (userdata.size() < 2U + length) return {};
    std::string_view value = userdata.substr(2, length);
    if (type == 0) {
      while (!value.empty() && value.back() == '\0') value.remove_suffix(1);
      return value;
    }
    userdata.remove_prefix(2U + length);
  }
  return {};
}

void put_data(Message& m, int type, const std::string& bytes) {
  nlattr* nest = m.begin(type);
  m.attr(NFTA_DATA_VALUE, bytes.data(), bytes.size());
  m.end(nest);
}

void put_element(Message& m, const std::string& key, const std::string& data, bool verdict,
                 bool with_data) {
  nlattr* element = m.begin(NFTA_LIST_ELEM);
  put_data(m, NFTA_SET_ELEM_KEY, key);
  if (with_data && verdict) {
    nlattr* nest = m.begin(NFTA_SET_ELEM_DATA);
    nlattr* inner = m.begin(NFTA_DATA_VERDICT);
    m.be32(NFTA_VERDICT_CODE, static_cast<std::uint32_t>(NFT_GOTO));
    m.text(NFTA_VERDICT_CHAIN, data);
    m.end(inner).end(nest);
  } else if (with_data && !data.empty()) {
    put_data(m, NFTA_SET_ELEM_DATA, data);
  }
  m.end(element);
}

struct Located {
  std::string_view name;  // of the table
  Table table;
  const ElementChange* change;
  bool adding;
  std::size_t begin, end;  // elements of change->add or ->remove
};

Message element_message(const Located& l) {
  const Elements& list = l.adding ? l.change->add : l.change->remove;
  std::size_t reserve = 512;
  for (std::size_t i = l.begin; i < l.end; ++i) {
    reserve += kElementOverhead + list[i].first.size() + list[i].second.size();
  }
  Message m = nft_message(l.adding ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM, l.table,
                          l.adding ? NLM_F_CREATE : 0, reserve);
  m.text(NFTA_SET_ELEM_LIST_TABLE, l.name).text(NFTA_SET_ELEM_LIST_SET, l.change->set);
  nlattr* nest = m.begin(NFTA_SET_ELEM_LIST_ELEMENTS);
  for (std::size_t i = l.begin; i < l.end; ++i) {
    put_element(m, list[i].first, list[i].second, l.change->verdict, l.adding);
  }
  m.end(nest);
  return m;
}

// Elements [begin, end) cut into messages of bounded size; one: a message for each.
void cut(std::string_view name, Table t, const ElementChange& c, bool adding, bool one,
         std::vector<Located>& out) {
  const Elements& list = adding ? c.add : c.remove;
  std::size_t begin = 0;
  while (begin < list.size()) {
    std::size_t end = begin, bytes = 0;
    while (end < list.size() && (end == begin || (!one && bytes < kMessageBytes))) {
      bytes += kElementOverhead + list[end].first.size() + list[end].second.size();
      ++end;
    }
    out.push_back({name, t, &c, adding, begin, end});
    begin = end;
  }
}

std::set<std::uint32_t> nfnetlink_ports() {
  std::set<std::uint32_t> out;
  DIR* dir = ::opendir("/proc/self/fd");
  if (dir == nullptr) return out;
  while (const dirent* entry = ::readdir(dir)) {
    const int fd = std::atoi(entry->d_name);
    int protocol = -1;
    socklen_t length = sizeof(protocol);
    sockaddr_nl address{};
    socklen_t address_length = sizeof(address);
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &address_length) == 0 &&
        address.nl_family == AF_NETLINK &&
        ::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0 &&
        protocol == NETLINK_NETFILTER) {
      out.insert(address.nl_pid);
    }
  }
  ::closedir(dir);
  return out;
}

}  // namespace

sdk::Outcome<std::unique_ptr<Nft>> Nft::open(std::string_view table) {
  auto socket = NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket) return socket.status();
  std::unique_ptr<Nft> out(new Nft(std::move(*socket), table));
  if (sdk::Status s = out->make_context(); !s.ok()) return s;
  return out;
}

Nft::~Nft() {
  if (context_ != nullptr) nft_ctx_free(context_);
}

sdk::Status Nft::make_context() {
  const auto before = nfnetlink_ports();
  context_ = nft_ctx_new(NFT_CTX_DEFAULT);
  if (context_ == nullptr) return sdk::fail(sdk::Code::kInternal, "libnftables does not start");
  nft_ctx_buffer_output(context_);
  nft_ctx_buffer_error(context_);
  // Its socket gets a port with its first message.
  (void)nft_run_cmd_from_buffer(context_, kAsksLittle);
  (void)nft_ctx_get_output_buffer(context_);
  context_port_ = 0;
  for (const std::uint32_t port : nfnetlink_ports()) {
    if (before.count(port) == 0) context_port_ = port;
  }
  return sdk::ok();
}

void Nft::release_memory() {
  // libnftables frees what it remembers of a transaction when the next one begins.
  (void)nft_run_cmd_from_buffer(context_, kAsksLittle);
  (void)nft_ctx_get_output_buffer(context_);
  ::malloc_trim(0);
}

std::vector<std::uint32_t> Nft::ports() const { return {socket_.port(), context_port_}; }

sdk::Status Nft::run(const std::string& text) {
  content_.reset();
  if (context_ == nullptr) return sdk::fail(sdk::Code::kInternal, "libnftables does not start");
  if (nft_run_cmd_from_buffer(context_, text.c_str()) == 0) {
    (void)nft_ctx_get_output_buffer(context_);
    return sdk::ok();
  }
  std::string error(nft_ctx_get_error_buffer(context_));
  if (error.size() > 600) error.resize(600);
  return sdk::fail(sdk::Code::kInternal, "nftables refused the transaction: " + error, "nftables");
}

sdk::Status Nft::try_out(const std::string& text) {
  if (context_ != nullptr) nft_ctx_set_dry_run(context_, true);
  sdk::Status s = run(text);
  if (context_ != nullptr) nft_ctx_set_dry_run(context_, false);
  return s;
}

std::uint32_t Nft::generation() {
  Message m = nft_message(NFT_MSG_GETGEN, Table::kIp, 0);
  std::uint32_t out = 0;
  const int err = socket_.get(m, [&](const nlmsghdr* h) {
    out = Attributes(h, sizeof(nfgenmsg), NFTA_GEN_MAX).be32(NFTA_GEN_ID);
  });
  if (err != 0) unreadable("generation", err);
  if (content_ && content_->generation != out) content_.reset();
  return out;
}

bool Nft::table_exists(Table t) {
  Message m = nft_message(NFT_MSG_GETTABLE, t, 0);
  m.text(NFTA_TABLE_NAME, table_);
  bool out = false;
  const int err = socket_.get(m, [&](const nlmsghdr*) { out = true; });
  if (err != 0 && err != ENOENT) unreadable("table", err);
  return out;
}

KernelTable Nft::dump(Table t) {
  if (content_) return content_->tables[static_cast<std::size_t>(t)];
  KernelTable out;
  out.exists = table_exists(t);
  if (!out.exists) return out;
  dump_chains(t, out);
  dump_rules(t, out);
  out.sets = sets(t);
  for (const auto& [name, packets] : counters(t)) out.counters.insert(name);
  return out;
}

void Nft::dump_chains(Table t, KernelTable& out) {
  Message m = nft_message(NFT_MSG_GETCHAIN, t, 0);
  const auto each = [&](const nlmsghdr* h) {
    const Attributes a(h, sizeof(nfgenmsg), NFTA_CHAIN_MAX);
    if (a.text(NFTA_CHAIN_TABLE) != table_) return;
    KernelChain chain;
    if (a.has(NFTA_CHAIN_HOOK)) {
      const Attributes hook(a[NFTA_CHAIN_HOOK], NFTA_HOOK_MAX);
      Hook found;
      found.type = a.text(NFTA_CHAIN_TYPE);
      found.hook_number = hook.be32(NFTA_HOOK_HOOKNUM);
      found.priority = static_cast<std::int32_t>(hook.be32(NFTA_HOOK_PRIORITY));
      found.device = hook.text(NFTA_HOOK_DEV);
      chain.hook = found;
      chain.policy_accept = a.be32(NFTA_CHAIN_POLICY) == NF_ACCEPT;
    }
    out.chains[std::string(a.text(NFTA_CHAIN_NAME))] = chain;
  };
  if (const int err = socket_.dump(m, each, [&] { out.chains.clear(); }); err != 0) {
    unreadable("chains", err);
  }
}

void Nft::dump_rules(Table t, KernelTable& out) {
  Message m = nft_message(NFT_MSG_GETRULE, t, 0);
  m.text(NFTA_RULE_TABLE, table_);
  const auto each = [&](const nlmsghdr* h) {
    const Attributes a(h, sizeof(nfgenmsg), NFTA_RULE_MAX);
    if (a.text(NFTA_RULE_TABLE) != table_) return;
    const auto at = out.chains.find(std::string(a.text(NFTA_RULE_CHAIN)));
    if (at == out.chains.end()) return;
    KernelChain& chain = at->second;
    std::string content = hex(chain.content, 16);
    content += a.bytes(NFTA_RULE_EXPRESSIONS);
    chain.content = fingerprint(content);
    const std::string_view comment = comment_of(a.bytes(NFTA_RULE_USERDATA));
    if (chain.rules == 0 && comment.size() > 20 && comment.substr(0, 4) == "egw:") {
      chain.claimed = std::strtoull(std::string(comment.substr(4, 16)).c_str(), nullptr, 16);
    }
    const std::string expected =
        "egw:" + hex(chain.claimed, 16) + ":" + std::to_string(chain.rules) + "/";
    if (comment.substr(0, expected.size()) != expected) chain.consistent = false;
    ++chain.rules;
    last_comment_[at->first] = std::string(comment);
  };
  last_comment_.clear();
  const auto restart = [&] {
    last_comment_.clear();
    for (auto& [name, chain] : out.chains) {
      chain.content = chain.claimed = 0;
      chain.rules = 0;
      chain.consistent = true;
    }
  };
  if (const int err = socket_.dump(m, each, restart); err != 0) unreadable("rules", err);
  for (auto& [name, chain] : out.chains) {
    if (chain.rules == 0 ||
        last_comment_[name] != rule_comment(chain.claimed, chain.rules - 1, chain.rules)) {
      chain.consistent = false;
    }
  }
  last_comment_.clear();
}

std::map<std::string, KernelSet> Nft::sets(Table t) {
  Message m = nft_message(NFT_MSG_GETSET, t, 0);
  m.text(NFTA_SET_TABLE, table_);
  std::map<std::string, KernelSet> out;
  const auto each = [&](const nlmsghdr* h) {
    const Attributes a(h, sizeof(nfgenmsg), NFTA_SET_MAX);
    // An anonymous set belongs to its rule.
    if (a.text(NFTA_SET_TABLE) != table_ || (a.be32(NFTA_SET_FLAGS) & NFT_SET_ANONYMOUS) != 0) {
      return;
    }
    out[std::string(a.text(NFTA_SET_NAME))] =
        KernelSet{a.be32(NFTA_SET_FLAGS), a.be32(NFTA_SET_KEY_LEN), a.be32(NFTA_SET_DATA_LEN),
                  a.be32(NFTA_SET_DATA_TYPE)};
  };
  if (const int err = socket_.dump(m, each, [&] { out.clear(); }); err != 0 && err != ENOENT) {
    unreadable("sets", err);
  }
  return out;
}

namespace {

struct RawElement {
  std::string key, data;
  bool end = false;
};

std::vector<RawElement> raw_elements(NetlinkSocket& socket, std::string_view table, Table t,
                                     const std::string& set, bool verdict) {
  Message m = nft_message(NFT_MSG_GETSETELEM, t, 0);
  m.text(NFTA_SET_ELEM_LIST_TABLE, table).text(NFTA_SET_ELEM_LIST_SET, set);
  std::vector<RawElement> out;
  const auto each = [&](const nlmsghdr* h) {
    const Attributes a(h, sizeof(nfgenmsg), NFTA_SET_ELEM_LIST_MAX);
    const nlattr* list = a[NFTA_SET_ELEM_LIST_ELEMENTS];
    if (list == nullptr) return;
    int rest = nla_len(list);
    for (const auto* e = static_cast<const nlattr*>(nla_data(list)); nla_ok(e, rest);
         e = nla_next(e, &rest)) {
      const Attributes element(e, NFTA_SET_ELEM_MAX);
      RawElement raw;
      const Attributes key(element[NFTA_SET_ELEM_KEY], NFTA_DATA_MAX);
      raw.key = key.bytes(NFTA_DATA_VALUE);
      raw.end = (element.be32(NFTA_SET_ELEM_FLAGS) & NFT_SET_ELEM_INTERVAL_END) != 0;
      if (element.has(NFTA_SET_ELEM_DATA)) {
        const Attributes data(element[NFTA_SET_ELEM_DATA], NFTA_DATA_MAX);
        if (verdict) {
          const Attributes v(data[NFTA_DATA_VERDICT], NFTA_VERDICT_MAX);
          // Another verdict than goto is no element of ours: it differs from every wanted one.
          raw.data = static_cast<std::int32_t>(v.be32(NFTA_VERDICT_CODE)) == NFT_GOTO
                         ? std::string(v.text(NFTA_VERDICT_CHAIN))
                         : "?";
        } else {
          raw.data = data.bytes(NFTA_DATA_VALUE);
        }
      }
      out.push_back(std::move(raw));
    }
  };
  if (const int err = socket.dump(m, each, [&] { out.clear(); }); err != 0 && err != ENOENT) {
    unreadable("set " + set, err);
  }
  return out;
}

}  // namespace

Elements Nft::elements(Table t, const std::string& set, bool verdict) {
  if (content_) {
    const auto& known = content_->elements[static_cast<std::size_t>(t)];
    if (const auto at = known.find(set); at != known.end()) return at->second;
  }
  Elements out;
  auto raw = raw_elements(socket_, table_, t, set, verdict);
  out.reserve(raw.size());
  for (RawElement& r : raw) out.emplace_back(std::move(r.key), std::move(r.data));
  std::sort(out.begin(), out.end());
  return out;
}

AddressRanges Nft::ranges(Table t, const std::string& set) {
  auto raw = raw_elements(socket_, table_, t, set, false);
  // Ends before starts of the same key: the end of one range is where its neighbour begins.
  std::sort(raw.begin(), raw.end(), [](const RawElement& a, const RawElement& b) {
    return a.key != b.key ? a.key < b.key : a.end && !b.end;
  });
  AddressRanges out;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw[i].end) continue;
    std::size_t next = i + 1;
    while (next < raw.size() && raw[next].key == raw[i].key) ++next;
    sdk::Address first = register_to_address(raw[i].key);
    sdk::Address last =
        next < raw.size() ? register_to_address(raw[next].key) : sdk::Prefix(first, 0).last();
    if (next < raw.size()) last.decrement();
    out.push_back({first, last, {}});
  }
  return out;
}

std::map<std::string, std::uint64_t> Nft::counters(Table t) {
  Message m = nft_message(NFT_MSG_GETOBJ, t, 0);
  m.text(NFTA_OBJ_TABLE, table_).be32(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
  std::map<std::string, std::uint64_t> out;
  const auto each = [&](const nlmsghdr* h) {
    const Attributes a(h, sizeof(nfgenmsg), NFTA_OBJ_MAX);
    if (a.text(NFTA_OBJ_TABLE) != table_) return;
    const Attributes data(a[NFTA_OBJ_DATA], NFTA_COUNTER_MAX);
    std::uint64_t packets = 0;
    for (const char c : data.bytes(NFTA_COUNTER_PACKETS)) {
      packets = packets << 8U | static_cast<unsigned char>(c);
    }
    out[std::string(a.text(NFTA_OBJ_NAME))] = packets;
  };
  if (const int err = socket_.dump(m, each, [&] { out.clear(); }); err != 0 && err != ENOENT) {
    unreadable("counters", err);
  }
  return out;
}

sdk::Status Nft::write_raw(const std::array<std::vector<Chain>, 3>& chains) {
  content_.reset();
  std::vector<Message> messages;
  for (const Table t : kTables) {
    for (const Chain& c : chains[static_cast<std::size_t>(t)]) {
      Message flush = nft_message(NFT_MSG_DELRULE, t, 0);
      flush.text(NFTA_RULE_TABLE, table_).text(NFTA_RULE_CHAIN, c.name);
      messages.push_back(std::move(flush));
      const std::string comment = rule_comment(c.fingerprint(), 0, 1);
      // Type 0, the comment; its length with the NUL.
      const std::string data =
          std::string(1, '\0') + static_cast<char>(comment.size() + 1) + comment + '\0';
      Message rule =
          nft_message(NFT_MSG_NEWRULE, t, NLM_F_CREATE | NLM_F_APPEND, 512 + c.raw.size());
      rule.text(NFTA_RULE_TABLE, table_).text(NFTA_RULE_CHAIN, c.name);
      rule.attr(NFTA_RULE_EXPRESSIONS | NLA_F_NESTED, c.raw.data(), c.raw.size());
      rule.attr(NFTA_RULE_USERDATA, data.data(), data.size());
      messages.push_back(std::move(rule));
    }
  }
  const auto result = socket_.batch(messages, NFNL_SUBSYS_NFTABLES);
  if (result.ok()) return sdk::ok();
  int error = result.whole;
  for (const int e : result.each) error = error == 0 ? e : error;
  return sdk::fail(
      sdk::Code::kInternal,
      "the kernel refused the rules that write egress ids and peers' numbers into marks",
      "nftables", error);
}

sdk::Status Nft::write(const std::array<const std::vector<ElementChange>*, 3>& changes,
                       std::vector<ElementFailure>& failures) {
  content_.reset();
  const auto locate = [&](bool one) {
    std::vector<Located> out;
    // Removals first: a replaced element is removed and added in the same transaction.
    for (const bool adding : {false, true}) {
      for (const Table t : kTables) {
        for (const ElementChange& c : *changes[static_cast<std::size_t>(t)]) {
          cut(table_, t, c, adding, one, out);
        }
      }
    }
    return out;
  };
  std::vector<Located> parts = locate(false);
  if (parts.empty()) return sdk::ok();
  const auto send = [&] {
    std::vector<Message> messages;
    messages.reserve(parts.size());
    for (const Located& l : parts) messages.push_back(element_message(l));
    return socket_.batch(messages, NFNL_SUBSYS_NFTABLES);
  };
  auto result = send();
  if (result.ok()) return sdk::ok();
  if (result.whole != 0) {
    return sdk::fail(sdk::Code::kInternal, "the kernel refused the elements", "nftables",
                     result.whole);
  }
  // One element at a time shows who is at fault; then once more without them.
  parts = locate(true);
  for (int attempt = 0; attempt < 3; ++attempt) {
    result = send();
    if (result.ok()) return sdk::ok();
    if (result.whole != 0) break;
    std::vector<Located> rest;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (result.each[i] == 0) {
        rest.push_back(parts[i]);
        continue;
      }
      const Located& l = parts[i];
      // Removing what is not there succeeds.
      if (!l.adding && result.each[i] == ENOENT) continue;
      const Elements& list = l.adding ? l.change->add : l.change->remove;
      failures.push_back({l.table, l.change->set, list[l.begin].first, result.each[i]});
    }
    if (rest.size() == parts.size()) break;
    parts = std::move(rest);
    if (parts.empty()) return sdk::ok();
  }
  return sdk::fail(sdk::Code::kInternal, "the kernel refused the elements", "nftables",
                   result.whole);
}

}  // namespace egw::common
