#include "conntrack.hpp"

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

namespace egw::common {
namespace {

// net/netfilter/nf_internals.h: which parts of a tuple a dump is filtered by.
constexpr std::uint32_t kFilterIpSource = 1U << 0;
constexpr std::uint32_t kFilterIpDestination = 1U << 1;
// How often is asked whether a late answer has begun a connection: first so long after the removal,
// then after twice that, and so on; and for how many.
constexpr std::chrono::milliseconds kLateFirst{5};
constexpr unsigned kLateRounds = 10;
constexpr std::size_t kMostLate = 4096;

// Bytes: two tuples of IPv6 are below 200; with both translations, TCP and what is copied below
// 400.
constexpr std::size_t kShort = 256, kCreation = 512;
// Connections for which messages are held, of each kind: some 4 MB, or 18 MB to bind them anew.
constexpr std::size_t kMostHeld = 10'000;

Message conntrack_message(int type, int family, int flags = 0, std::size_t reserve = kShort) {
  nfgenmsg g{};
  g.nfgen_family = static_cast<std::uint8_t>(family);
  g.version = NFNETLINK_V0;
  Message m((NFNL_SUBSYS_CTNETLINK << 8) | type, flags, reserve);
  m.header(g);
  return m;
}

// The kernel's filter by address is for IPv4 only: for IPv6 it answers with the entries that do not
// match (ctnetlink_filter_match_tuple() takes ipv6_addr_cmp()'s 0 for "differs"; seen on 6.18).
bool filters(const std::optional<sdk::Address>& address) { return address && address->is_v4(); }

void put_filter(Message& m, const SweepHint& hint) {
  std::uint32_t original = 0, reply = 0;
  if (filters(hint.source)) {
    nlattr* tuple = m.begin(CTA_TUPLE_ORIG);
    nlattr* ip = m.begin(CTA_TUPLE_IP);
    m.address(CTA_IP_V4_SRC, *hint.source);
    m.end(ip).end(tuple);
    original |= kFilterIpSource;
  }
  if (filters(hint.translated)) {
    nlattr* tuple = m.begin(CTA_TUPLE_REPLY);
    nlattr* ip = m.begin(CTA_TUPLE_IP);
    m.address(CTA_IP_V4_DST, *hint.translated);
    m.end(ip).end(tuple);
    reply |= kFilterIpDestination;
  }
  nlattr* filter = m.begin(CTA_FILTER);
  m.u32(CTA_FILTER_ORIG_FLAGS, original).u32(CTA_FILTER_REPLY_FLAGS, reply).end(filter);
}

// One entry of a dump, taken apart; and the messages that delete it or make others of its kind.
// Points into the dump's buffer.
class Entry {
 public:
  explicit Entry(const nlmsghdr* h)
      : family_(static_cast<const nfgenmsg*>(nlmsg_data(h))->nfgen_family),
        all_(h, sizeof(nfgenmsg), CTA_MAX),
        original_(all_[CTA_TUPLE_ORIG], CTA_TUPLE_MAX),
        reply_(all_[CTA_TUPLE_REPLY], CTA_TUPLE_MAX),
        original_ip_(original_[CTA_TUPLE_IP], CTA_IP_MAX),
        reply_ip_(reply_[CTA_TUPLE_IP], CTA_IP_MAX),
        original_proto_(original_[CTA_TUPLE_PROTO], CTA_PROTO_MAX),
        reply_proto_(reply_[CTA_TUPLE_PROTO], CTA_PROTO_MAX) {
    flow_.source = original_ip_.address(source());
    flow_.destination = reply_ip_.address(source());
    flow_.translated = reply_ip_.address(destination());
    flow_.zone = original_.be16(CTA_TUPLE_ZONE);
    flow_.redirected = original_ip_.address(destination()) != flow_.destination;
  }

  [[nodiscard]] const Flow& flow() const { return flow_; }
  [[nodiscard]] bool foreign() const {
    return (family_ != AF_INET && family_ != AF_INET6) || all_.has(CTA_ZONE);
  }
  // What the messages below can tell of.
  [[nodiscard]] bool portable() const {
    const Attributes info(all_[CTA_PROTOINFO], CTA_PROTOINFO_MAX);
    return !all_.has(CTA_HELP) && !all_.has(CTA_TUPLE_MASTER) && !info.has(CTA_PROTOINFO_DCCP);
  }

  [[nodiscard]] Message deletion() const {
    const std::string_view tuple = all_.bytes(CTA_TUPLE_ORIG);
    Message m = conntrack_message(IPCTNL_MSG_CT_DELETE, family_);
    m.attr(CTA_TUPLE_ORIG | NLA_F_NESTED, tuple.data(), tuple.size());
    // The very entry that was looked at, not one that has taken its place.
    copy(m, CTA_ID);
    return m;
  }
  [[nodiscard]] Message deletion_in(std::uint16_t zone) const {
    Message m = conntrack_message(IPCTNL_MSG_CT_DELETE, family_);
    put_original(m, zone);
    return m;
  }
  // Nobody has turned it elsewhere, on either side.
  [[nodiscard]] bool plain() const {
    return flow_.zone == 0 && flow_.translated == flow_.source &&
           flow_.destination == original_ip_.address(destination());
  }
  // Asks for the connection that an answer in this one is in.
  [[nodiscard]] Message question() const {
    Message m = conntrack_message(IPCTNL_MSG_CT_GET, family_);
    put_inverse(m, CTA_TUPLE_ORIG);
    return m;
  }
  // The same connection with another source outside; parked: in a zone and for a while.
  [[nodiscard]] Message creation(const sdk::Address& translated, std::uint16_t port,
                                 std::uint16_t zone, bool parked) const {
    Message m = conntrack_message(IPCTNL_MSG_CT_NEW, family_, NLM_F_CREATE | NLM_F_EXCL, kCreation);
    put_original(m, zone);
    put_inverse(m, CTA_TUPLE_REPLY);
    put_nat(m, CTA_NAT_SRC, translated, port);
    // Both tuples begin untranslated: the kernel works the translations out.
    if (flow_.destination != original_ip_.address(destination())) {
      put_nat(m, CTA_NAT_DST, flow_.destination, reply_proto_.be16(CTA_PROTO_SRC_PORT));
    }
    const std::uint32_t kept = all_.be32(CTA_STATUS) & (IPS_SEEN_REPLY | IPS_ASSURED);
    m.be32(CTA_STATUS, kept | IPS_CONFIRMED | (parked ? std::uint32_t{IPS_FIXED_TIMEOUT} : 0U));
    m.be32(CTA_TIMEOUT, parked ? kParkedSeconds : all_.be32(CTA_TIMEOUT));
    copy(m, CTA_MARK);
    put_protocol(m);
    return m;
  }
  // The port (or echo id) of the pod, and the one that the destination sees.
  [[nodiscard]] std::uint16_t own_port() const { return port(original_proto_, CTA_PROTO_SRC_PORT); }
  [[nodiscard]] std::uint16_t seen_port() const { return port(reply_proto_, CTA_PROTO_DST_PORT); }

 private:
  [[nodiscard]] bool v4() const { return family_ == AF_INET; }
  [[nodiscard]] int source() const { return v4() ? CTA_IP_V4_SRC : CTA_IP_V6_SRC; }
  [[nodiscard]] int destination() const { return v4() ? CTA_IP_V4_DST : CTA_IP_V6_DST; }
  [[nodiscard]] int echo() const { return v4() ? CTA_PROTO_ICMP_ID : CTA_PROTO_ICMPV6_ID; }
  [[nodiscard]] std::uint16_t port(const Attributes& proto, int type) const {
    return proto.has(echo()) ? proto.be16(echo()) : proto.be16(type);
  }
  void copy(Message& m, int type) const {
    if (all_.has(type)) m.attr(type, all_.bytes(type).data(), all_.bytes(type).size());
  }

  void put_original(Message& m, std::uint16_t zone) const {
    nlattr* tuple = m.begin(CTA_TUPLE_ORIG);
    for (const int part : {CTA_TUPLE_IP, CTA_TUPLE_PROTO}) {
      const std::string_view bytes = original_.bytes(part);
      m.attr(part | NLA_F_NESTED, bytes.data(), bytes.size());
    }
    if (zone != 0) m.be16(CTA_TUPLE_ZONE, zone);
    m.end(tuple);
  }

  void put_inverse(Message& m, int type) const {
    nlattr* tuple = m.begin(type);
    nlattr* ip = m.begin(CTA_TUPLE_IP);
    m.address(source(), original_ip_.address(destination())).address(destination(), flow_.source);
    m.end(ip);
    nlattr* proto = m.begin(CTA_TUPLE_PROTO);
    m.u8(CTA_PROTO_NUM, original_proto_.u8(CTA_PROTO_NUM));
    if (original_proto_.has(CTA_PROTO_SRC_PORT)) {
      m.be16(CTA_PROTO_SRC_PORT, original_proto_.be16(CTA_PROTO_DST_PORT));
      m.be16(CTA_PROTO_DST_PORT, original_proto_.be16(CTA_PROTO_SRC_PORT));
    } else if (original_proto_.has(echo())) {
      m.be16(echo(), original_proto_.be16(echo()));
      m.u8(echo() + 1, reply_proto_.u8(echo() + 1)).u8(echo() + 2, reply_proto_.u8(echo() + 2));
    }
    m.end(proto).end(tuple);
  }

  void put_nat(Message& m, int type, const sdk::Address& to, std::uint16_t port) const {
    nlattr* nat = m.begin(type);
    m.address(v4() ? CTA_NAT_V4_MINIP : CTA_NAT_V6_MINIP, to);
    m.address(v4() ? CTA_NAT_V4_MAXIP : CTA_NAT_V6_MAXIP, to);
    if (port != 0) {
      nlattr* proto = m.begin(CTA_NAT_PROTO);
      m.be16(CTA_PROTONAT_PORT_MIN, port).be16(CTA_PROTONAT_PORT_MAX, port).end(proto);
    }
    m.end(nat);
  }

  // The new entry has seen no packet: it must not judge by sequence numbers.
  void put_protocol(Message& m) const {
    const Attributes info(all_[CTA_PROTOINFO], CTA_PROTOINFO_MAX);
    if (!info.has(CTA_PROTOINFO_TCP)) return copy_protocol(m);
    const Attributes tcp(info[CTA_PROTOINFO_TCP], CTA_PROTOINFO_TCP_MAX);
    nlattr* outer = m.begin(CTA_PROTOINFO);
    nlattr* inner = m.begin(CTA_PROTOINFO_TCP);
    m.u8(CTA_PROTOINFO_TCP_STATE, tcp.u8(CTA_PROTOINFO_TCP_STATE));
    for (const int scale : {CTA_PROTOINFO_TCP_WSCALE_ORIGINAL, CTA_PROTOINFO_TCP_WSCALE_REPLY}) {
      m.u8(scale, tcp.u8(scale));
    }
    for (const int type : {CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, CTA_PROTOINFO_TCP_FLAGS_REPLY}) {
      nf_ct_tcp_flags flags{};
      flags.flags = static_cast<std::uint8_t>(tcp.u8(type) | IP_CT_TCP_FLAG_BE_LIBERAL);
      flags.mask = flags.flags;
      m.attr(type, &flags, sizeof(flags));
    }
    m.end(inner).end(outer);
  }
  void copy_protocol(Message& m) const {
    const std::string_view bytes = all_.bytes(CTA_PROTOINFO);
    if (!bytes.empty()) m.attr(CTA_PROTOINFO | NLA_F_NESTED, bytes.data(), bytes.size());
  }

  int family_;
  Attributes all_, original_, reply_, original_ip_, reply_ip_, original_proto_, reply_proto_;
  Flow flow_;
};

// The order matters: an entry of before may stand where one of the new ones belongs.
constexpr std::size_t kRebindMessages = 4, kDeletesOld = 1;
void rebind(const Entry& entry, const Fate& fate, std::vector<Message>& out) {
  const Flow& flow = entry.flow();
  out.push_back(entry.deletion_in(fate.zone));
  out.push_back(entry.deletion());
  out.push_back(entry.creation(fate.translated, entry.own_port(), 0, false));
  out.push_back(entry.creation(flow.translated, entry.seen_port(), fate.zone, true));
}

// What a pass has found and not told the kernel yet: never much, however big the table is. Too many
// deletions go out while the table is still being read, by a socket of their own: the kernel goes
// on with a dump as its parts are fetched, whatever goes meanwhile.
class Findings {
 public:
  explicit Findings(LateAnswers* late) : late_(late) {}

  // What has not been sent is found again, or not.
  void start_over() {
    deletions_.clear();
    rebindings_.clear();
    left_out_ = false;
    if (late_ != nullptr) late_->start_over();
  }

  void add(const Entry& entry, const Fate& fate) {
    if (fate.kind == Fate::Kind::kRebind && entry.portable()) return add_rebinding(entry, fate);
    if (deletions_.size() == kMostHeld) send_deletions(beside());
    deletions_.push_back(entry.deletion());
    if (late_ != nullptr && entry.plain()) late_->add(entry.question(), entry.flow().destination);
  }

  void send(NetlinkSocket& socket) {
    send_deletions(socket);
    const std::vector<int> errors = socket.requests(rebindings_);
    for (std::size_t i = kDeletesOld; i < errors.size(); i += kRebindMessages) {
      done_ += errors[i] == 0 ? 1 : 0;
    }
    rebindings_.clear();
  }

  // Whether there were more to bind anew than are held: they need a second look, the last one.
  [[nodiscard]] bool another_look() {
    second_ = left_out_;
    return second_;
  }
  [[nodiscard]] int done() const { return done_; }

 private:
  // What is removed may stand in the way of a new binding, so all of it goes first: in the second
  // look it has gone.
  void add_rebinding(const Entry& entry, const Fate& fate) {
    if (rebindings_.size() == kMostHeld * kRebindMessages) {
      left_out_ = !second_;
      if (left_out_) return;
      send(beside());
    }
    rebind(entry, fate, rebindings_);
  }

  void send_deletions(NetlinkSocket& socket) {
    for (const int err : socket.requests(deletions_)) done_ += err == 0 ? 1 : 0;
    deletions_.clear();
    if (late_ != nullptr) late_->begin(LateAnswers::Clock::now());
  }

  NetlinkSocket& beside() {
    if (!beside_) beside_.emplace(std::move(*NetlinkSocket::open(NETLINK_NETFILTER)));
    return *beside_;
  }

  LateAnswers* late_;
  std::vector<Message> deletions_, rebindings_;
  std::optional<NetlinkSocket> beside_;
  bool left_out_ = false, second_ = false;
  int done_ = 0;
};

}  // namespace

// A dump walks the machine's whole table, whatever the filter: one for both families.
int sweep(NetlinkSocket& socket, const SweepHint& hint,
          const std::function<Fate(const Flow&)>& judge, LateAnswers* late) {
  const sdk::Address* address = hint.source       ? &*hint.source
                                : hint.translated ? &*hint.translated
                                                  : nullptr;
  Message request =
      conntrack_message(IPCTNL_MSG_CT_GET, address != nullptr ? address->af() : AF_UNSPEC);
  // The kernel refuses a filter in a dump of all families (EOPNOTSUPP).
  if (filters(hint.source) || filters(hint.translated)) put_filter(request, hint);
  Findings found(late);
  const auto each = [&](const nlmsghdr* h) {
    const Entry entry(h);
    if (entry.foreign()) return;
    const Fate fate = judge(entry.flow());
    if (fate.kind != Fate::Kind::kKeep) found.add(entry, fate);
  };
  try {
    do {
      found.start_over();
      const int err = socket.dump(request, each, [&] { found.start_over(); });
      if (err != 0) return -err;
      found.send(socket);
    } while (found.another_look());
  } catch (const sdk::Failure& failure) {  // no second socket
    return failure.status().sys_errno != 0 ? -failure.status().sys_errno : -EIO;
  }
  return found.done();
}

void LateAnswers::add(Message question, const sdk::Address& from) {
  if (added_++ < kMostLate) gathered_.push_back({std::move(question), from});
}

void LateAnswers::begin(Clock::time_point now) {
  if (!gathered_.empty()) rounds_.push_back({now, 0, std::exchange(gathered_, {})});
}

LateAnswers::Clock::time_point LateAnswers::Round::due() const {
  return removed + kLateFirst * (1U << asked);
}

std::optional<LateAnswers::Clock::time_point> LateAnswers::due() const {
  std::optional<Clock::time_point> first;
  for (const Round& r : rounds_) {
    if (const auto at = r.due(); !first || at < *first) first = at;
  }
  return first;
}

bool LateAnswers::Round::next(Clock::time_point now) {
  if (due() > now) return false;
  while (asked < kLateRounds && due() <= now) ++asked;
  return true;
}

void LateAnswers::end_rounds() {
  std::erase_if(rounds_, [](const Round& r) { return r.asked == kLateRounds; });
}

void LateAnswers::postpone(Clock::time_point now) {
  for (Round& r : rounds_) r.next(now);
  end_rounds();
}

int LateAnswers::look(NetlinkSocket& socket, Clock::time_point now) {
  std::vector<Message> deletions;
  for (Round& r : rounds_) {
    if (!r.next(now)) continue;
    for (Question& q : r.questions) {
      socket.get(q.message, [&](const nlmsghdr* h) {
        const Entry entry(h);
        // Not one of the endpoint's own, in which this would be an answer.
        if (!entry.foreign() && entry.flow().source == q.from) {
          deletions.push_back(entry.deletion());
        }
      });
    }
  }
  end_rounds();
  int done = 0;
  for (const int err : socket.requests(deletions)) done += err == 0 ? 1 : 0;
  return done;
}

}  // namespace egw::common
