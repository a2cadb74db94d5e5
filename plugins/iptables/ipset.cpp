#include "ipset.hpp"

#include <linux/netfilter.h>
#include <linux/netfilter/ipset/ip_set.h>
#include <linux/netfilter/ipset/ip_set_hash.h>
#include <linux/netfilter/nfnetlink.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace egw::iptables {
namespace {

constexpr std::uint8_t kProtocol = 6;  // kernels speak 6 and 7; nothing of 7 is used
constexpr std::uint32_t kMostElements = 1048576;
constexpr std::size_t kElementRoom = 80;  // of one element in a message
constexpr std::size_t kPerMessage = 700;  // a nested attribute holds 64 KiB
// include/uapi/linux/netfilter/ipset/ip_set_hash.h and the types' files: revisions with skbinfo.
constexpr std::uint8_t kAddressRevision = 4, kPrefixRevision = 6;

const char* type_name(SetType type) { return type == SetType::kAddresses ? "hash:ip" : "hash:net"; }

std::uint64_t big_endian(std::uint64_t v) { return __builtin_bswap64(v); }

void put_element(common::Message& m, const SetKind& kind, const sdk::Prefix& key,
                 const MarkChange& mark, std::uint32_t line) {
  nlattr* data = m.begin(IPSET_ATTR_DATA | NLA_F_NESTED);
  nlattr* ip = m.begin(IPSET_ATTR_IP | NLA_F_NESTED);
  m.address(
      (key.address.is_v4() ? IPSET_ATTR_IPADDR_IPV4 : IPSET_ATTR_IPADDR_IPV6) | NLA_F_NET_BYTEORDER,
      key.address);
  m.end(ip);
  if (kind.type == SetType::kPrefixes) m.u8(IPSET_ATTR_CIDR, key.len);
  if (kind.marks) {
    const std::uint64_t both = big_endian(static_cast<std::uint64_t>(mark.value) << 32 | mark.mask);
    m.attr(IPSET_ATTR_SKBMARK | NLA_F_NET_BYTEORDER, &both, sizeof(both));
  }
  m.u32(IPSET_ATTR_LINENO | NLA_F_NET_BYTEORDER, line);
  m.end(data);
}

std::pair<sdk::Prefix, MarkChange> element_of(const nlattr* data) {
  const common::Attributes a(data, IPSET_ATTR_ADT_MAX);
  std::pair<sdk::Prefix, MarkChange> out;
  if (!a.has(IPSET_ATTR_IP)) return out;
  const common::Attributes ip(a[IPSET_ATTR_IP], IPSET_ATTR_IPADDR_MAX);
  const sdk::Address address =
      ip.address(ip.has(IPSET_ATTR_IPADDR_IPV4) ? IPSET_ATTR_IPADDR_IPV4 : IPSET_ATTR_IPADDR_IPV6);
  out.first = sdk::Prefix(address, a.has(IPSET_ATTR_CIDR) ? a.u8(IPSET_ATTR_CIDR) : address.bits());
  if (const auto bytes = a.bytes(IPSET_ATTR_SKBMARK); bytes.size() == sizeof(std::uint64_t)) {
    std::uint64_t both = 0;
    std::memcpy(&both, bytes.data(), sizeof(both));
    both = big_endian(both);
    out.second = {static_cast<std::uint32_t>(both >> 32), static_cast<std::uint32_t>(both)};
  }
  return out;
}

}  // namespace

std::string ipset_error(int error) {
  switch (error) {
    case IPSET_ERR_FIND_TYPE:
      return "the kernel has no such type of set";
    case IPSET_ERR_MAX_SETS:
      return "the kernel takes no more sets";
    case IPSET_ERR_BUSY:
      return "the set is in use";
    case IPSET_ERR_TYPE_MISMATCH:
      return "a set of that name and of another type exists";
    case IPSET_ERR_HASH_FULL:
      return "the set is full";
    default:
      return error < IPSET_ERR_PRIVATE ? std::strerror(error)
                                       : "ipset error " + std::to_string(error);
  }
}

sdk::Outcome<Ipset> Ipset::open() {
  auto socket = common::NetlinkSocket::open(NETLINK_NETFILTER);
  if (!socket) return socket.status();
  return Ipset(std::move(*socket));
}

common::Message Ipset::message(int command, int flags, const std::string& name,
                               std::size_t reserve) {
  nfgenmsg header{};
  header.nfgen_family = NFPROTO_IPV4;
  header.version = NFNETLINK_V0;
  common::Message m(NFNL_SUBSYS_IPSET << 8 | command, flags, reserve);
  m.header(header).u8(IPSET_ATTR_PROTOCOL, kProtocol);
  if (!name.empty()) m.text(IPSET_ATTR_SETNAME, name);
  return m;
}

std::optional<std::uint8_t> Ipset::revision(SetType type, Table family) {
  const auto known = revisions_.find({type, family});
  if (known != revisions_.end()) return known->second;
  common::Message m = message(IPSET_CMD_TYPE, 0, {}, 512);
  m.text(IPSET_ATTR_TYPENAME, type_name(type)).u8(IPSET_ATTR_FAMILY, common::nf_family(family));
  std::optional<std::uint8_t> out;
  const int error = socket_.get(m, [&](const nlmsghdr* answer) {
    const common::Attributes a(answer, sizeof(nfgenmsg), IPSET_ATTR_CMD_MAX);
    if (a.has(IPSET_ATTR_REVISION)) out = a.u8(IPSET_ATTR_REVISION);
  });
  const std::uint8_t least = type == SetType::kAddresses ? kAddressRevision : kPrefixRevision;
  if (error != 0 || (out && *out < least)) out.reset();
  // The oldest revision that does, so that a newer kernel gives what an older one does.
  if (out) out = least;
  revisions_[{type, family}] = out;
  return out;
}

int Ipset::create(const std::string& name, const SetKind& kind, std::size_t size) {
  const auto revision = this->revision(kind.type, kind.family);
  if (!revision) return IPSET_ERR_FIND_TYPE;
  std::uint32_t buckets = 64;
  while (buckets < size && buckets < kMostElements) buckets *= 2;
  common::Message m = message(IPSET_CMD_CREATE, NLM_F_CREATE | NLM_F_EXCL, name, 512);
  m.text(IPSET_ATTR_TYPENAME, type_name(kind.type))
      .u8(IPSET_ATTR_REVISION, *revision)
      .u8(IPSET_ATTR_FAMILY, common::nf_family(kind.family));
  nlattr* data = m.begin(IPSET_ATTR_DATA | NLA_F_NESTED);
  if (kind.marks) m.be32(IPSET_ATTR_CADT_FLAGS | NLA_F_NET_BYTEORDER, IPSET_FLAG_WITH_SKBINFO);
  m.be32(IPSET_ATTR_HASHSIZE | NLA_F_NET_BYTEORDER, buckets);
  m.be32(IPSET_ATTR_MAXELEM | NLA_F_NET_BYTEORDER, kMostElements);
  m.end(data);
  return socket_.request(m);
}

int Ipset::destroy(const std::string& name) {
  common::Message m = message(IPSET_CMD_DESTROY, 0, name, 512);
  const int error = socket_.request(m);
  return error == ENOENT ? 0 : error;
}

int Ipset::swap(const std::string& a, const std::string& b) {
  common::Message m = message(IPSET_CMD_SWAP, 0, a, 512);
  m.text(IPSET_ATTR_SETNAME2, b);
  return socket_.request(m);
}

std::vector<Ipset::Refused> Ipset::add(const std::string& name, const SetKind& kind,
                                       const SetElements& elements) {
  return change(IPSET_CMD_ADD, name, kind, elements);
}

std::vector<Ipset::Refused> Ipset::remove(const std::string& name, const SetKind& kind,
                                          const SetElements& elements) {
  return change(IPSET_CMD_DEL, name, kind, elements);
}

std::vector<Ipset::Refused> Ipset::change(int command, const std::string& name, const SetKind& kind,
                                          const SetElements& elements) {
  std::vector<common::Message> messages;
  std::vector<SetElements::const_iterator> starts;
  std::size_t left = elements.size();
  for (auto at = elements.begin(); left != 0;) {
    const std::size_t count = std::min(kPerMessage, left);
    left -= count;
    starts.push_back(at);
    messages.push_back(message(command, 0, name, 512 + count * kElementRoom));
    common::Message& m = messages.back();
    nlattr* list = m.begin(IPSET_ATTR_ADT | NLA_F_NESTED);
    for (std::size_t i = 0; i < count; ++i, ++at) {
      put_element(m, kind, at->first, at->second, static_cast<std::uint32_t>(i));
    }
    m.end(list);
    m.u32(IPSET_ATTR_LINENO, 0);
  }
  std::vector<Refused> out;
  const std::vector<int> errors = socket_.requests(messages);
  for (std::size_t i = 0; i < errors.size(); ++i) {
    if (errors[i] == 0) continue;
    // All before the refused one are in. One by one from here on, to learn which are refused.
    const auto end = i + 1 < starts.size() ? starts[i + 1] : elements.end();
    if (std::distance(starts[i], end) == 1) {
      if (!(command == IPSET_CMD_DEL && errors[i] == IPSET_ERR_EXIST)) {
        out.push_back({errors[i], starts[i]->first});
      }
      continue;
    }
    for (auto at = starts[i]; at != end; ++at) {
      const auto more = change(command, name, kind, {*at});
      out.insert(out.end(), more.begin(), more.end());
    }
  }
  return out;
}

std::map<std::string, SetHeader> Ipset::headers() {
  common::Message m = message(IPSET_CMD_LIST, 0, {}, 512);
  m.be32(IPSET_ATTR_FLAGS | NLA_F_NET_BYTEORDER, IPSET_FLAG_LIST_HEADER);
  std::map<std::string, SetHeader> out;
  const int error = socket_.dump(
      m,
      [&](const nlmsghdr* answer) {
        const common::Attributes a(answer, sizeof(nfgenmsg), IPSET_ATTR_CMD_MAX);
        const std::string name(a.text(IPSET_ATTR_SETNAME));
        if (!is_our_set(name) || !a.has(IPSET_ATTR_DATA)) return;
        const common::Attributes data(a[IPSET_ATTR_DATA], IPSET_ATTR_CREATE_MAX);
        SetHeader header;
        const std::string type(a.text(IPSET_ATTR_TYPENAME));
        header.kind.type = type == "hash:net" ? SetType::kPrefixes : SetType::kAddresses;
        header.kind.family = a.u8(IPSET_ATTR_FAMILY) == NFPROTO_IPV6 ? Table::kIp6 : Table::kIp;
        header.kind.marks = (data.be32(IPSET_ATTR_CADT_FLAGS) & IPSET_FLAG_WITH_SKBINFO) != 0;
        header.elements = data.be32(IPSET_ATTR_ELEMENTS);
        header.references = data.be32(IPSET_ATTR_REFERENCES);
        out[name] = header;
      },
      [&] { out.clear(); });
  if (error != 0) {
    throw sdk::Failure(sdk::Code::kUnavailable,
                       "the kernel's sets cannot be read: " + ipset_error(error), "ipset");
  }
  return out;
}

SetElements Ipset::elements(const std::string& name) {
  common::Message m = message(IPSET_CMD_LIST, 0, name, 512);
  SetElements out;
  const int error = socket_.dump(
      m,
      [&](const nlmsghdr* answer) {
        const common::Attributes a(answer, sizeof(nfgenmsg), IPSET_ATTR_CMD_MAX);
        if (!a.has(IPSET_ATTR_ADT)) return;
        auto* at = static_cast<nlattr*>(nla_data(a[IPSET_ATTR_ADT]));
        int rest = nla_len(a[IPSET_ATTR_ADT]);
        for (; nla_ok(at, rest); at = nla_next(at, &rest)) {
          const auto [key, mark] = element_of(at);
          if (key) out.emplace(key, mark);
        }
      },
      [&] { out.clear(); });
  if (error != 0 && error != ENOENT) {
    throw sdk::Failure(sdk::Code::kUnavailable, "cannot be read: " + ipset_error(error),
                       "ipset " + name);
  }
  return out;
}

}  // namespace egw::iptables
