#include "netlink.hpp"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace egw::common {
namespace {

constexpr std::size_t kReceiveBuffer = 256UL * 1024;
constexpr std::size_t kChunk = 64UL * 1024;  // bytes of messages per system call of requests()
constexpr int kAnswerTimeoutMs = 10'000;

}  // namespace

Message::Message(int type, int flags, std::size_t reserve)
    : msg_(nlmsg_alloc_size(reserve + NLMSG_HDRLEN)) {
  if (!msg_ || nlmsg_put(msg_.get(), 0, 0, type, 0, flags | NLM_F_REQUEST) == nullptr) {
    throw std::bad_alloc();
  }
}

void Message::append(const void* data, std::size_t size) {
  if (nlmsg_append(msg_.get(), const_cast<void*>(data), size, NLMSG_ALIGNTO) < 0) {
    throw std::bad_alloc();
  }
}

Message& Message::attr(int type, const void* data, std::size_t size) {
  if (nla_put(msg_.get(), type, static_cast<int>(size), data) < 0) throw std::bad_alloc();
  return *this;
}

Message& Message::be16(int type, std::uint16_t v) { return u16(type, htons(v)); }
Message& Message::be32(int type, std::uint32_t v) { return u32(type, htonl(v)); }

Message& Message::text(int type, std::string_view v) {
  nlattr* a = nla_reserve(msg_.get(), type, static_cast<int>(v.size() + 1));
  if (a == nullptr) throw std::bad_alloc();
  std::memcpy(nla_data(a), v.data(), v.size());
  static_cast<char*>(nla_data(a))[v.size()] = '\0';
  return *this;
}

Message& Message::address(int type, const sdk::Address& a) {
  return attr(type, a.bytes.data(), a.size());
}

nlattr* Message::begin(int type) {
  nlattr* nest = nla_nest_start(msg_.get(), type);
  if (nest == nullptr) throw std::bad_alloc();
  nest->nla_type |= NLA_F_NESTED;
  return nest;
}

Message& Message::end(nlattr* nest) {
  // Not nla_nest_end(): it drops an empty nest.
  auto* tail = static_cast<char*>(nlmsg_tail(raw()));
  nest->nla_len = static_cast<std::uint16_t>(tail - reinterpret_cast<char*>(nest));
  return *this;
}

Attributes::Attributes(int max) {
  const auto types = static_cast<std::size_t>(max) + 1;
  if (types > kUsual) many_.resize(types);
  table_ = types > kUsual ? std::span(many_) : std::span(usual_).first(types);
}

Attributes::Attributes(const nlmsghdr* message, std::size_t header, int max) : Attributes(max) {
  const int skip = static_cast<int>(header);
  parse(nlmsg_attrdata(message, skip), nlmsg_attrlen(message, skip));
}

Attributes::Attributes(const nlattr* nest, int max) : Attributes(max) {
  if (nest != nullptr) parse(static_cast<const nlattr*>(nla_data(nest)), nla_len(nest));
}

void Attributes::parse(const nlattr* first, int length) {
  int rest = length;
  for (const nlattr* a = first; nla_ok(a, rest); a = nla_next(a, &rest)) {
    const auto type = static_cast<std::size_t>(nla_type(a));
    if (type < table_.size()) table_[type] = a;
  }
}

std::string_view bytes_of(const nlattr* attribute) {
  if (attribute == nullptr) return {};
  return {static_cast<const char*>(nla_data(attribute)),
          static_cast<std::size_t>(nla_len(attribute))};
}

std::string_view Attributes::bytes(int type) const { return bytes_of((*this)[type]); }

std::uint32_t Attributes::u32(int type) const {
  std::uint32_t v = 0;
  const auto b = bytes(type);
  if (b.size() >= sizeof(v)) std::memcpy(&v, b.data(), sizeof(v));
  return v;
}
std::uint32_t Attributes::be32(int type) const { return ntohl(u32(type)); }
std::uint16_t Attributes::be16(int type) const {
  std::uint16_t v = 0;
  const auto b = bytes(type);
  if (b.size() >= sizeof(v)) std::memcpy(&v, b.data(), sizeof(v));
  return ntohs(v);
}
std::uint8_t Attributes::u8(int type) const {
  const auto b = bytes(type);
  return b.empty() ? std::uint8_t{0} : static_cast<std::uint8_t>(b[0]);
}
std::string_view Attributes::text(int type) const {
  auto b = bytes(type);
  while (!b.empty() && b.back() == '\0') b.remove_suffix(1);
  return b;
}
sdk::Address Attributes::address(int type) const {
  sdk::Address out;
  const auto b = bytes(type);
  if (b.size() != 4 && b.size() != 16) return out;
  out.family = b.size() == 4 ? 4 : 6;
  std::memcpy(out.bytes.data(), b.data(), b.size());
  return out;
}

sdk::Outcome<NetlinkSocket> NetlinkSocket::open(int protocol) {
  nl_sock* sock = nl_socket_alloc();
  if (sock == nullptr) return sdk::fail(sdk::Code::kInternal, "out of memory");
  NetlinkSocket out(sock);
  if (const int err = nl_connect(sock, protocol); err < 0) {
    return sdk::fail(sdk::Code::kUnavailable,
                     std::string("cannot open a netlink socket: ") + nl_geterror(err), "netlink",
                     errno);
  }
  // Privileged sizes: a batch is one datagram, and dumps must not be paced by the reader.
  const int big = 64 * 1024 * 1024;
  setsockopt(out.fd(), SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof(big));
  const int receive = 8 * 1024 * 1024;
  setsockopt(out.fd(), SOL_SOCKET, SO_RCVBUFFORCE, &receive, sizeof(receive));
  const int on = 1;
  setsockopt(out.fd(), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof(on));
  setsockopt(out.fd(), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
  out.sequence_ = static_cast<std::uint32_t>(getpid()) << 8U;
  return out;
}

int NetlinkSocket::send(const void* data, std::size_t size) {
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  for (;;) {
    const ssize_t n =
        ::sendto(fd(), data, size, 0, reinterpret_cast<const sockaddr*>(&kernel), sizeof(kernel));
    if (n >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

int NetlinkSocket::receive(std::size_t& size) {
  if (buffer_.empty()) buffer_.resize(kReceiveBuffer);
  pollfd p{fd(), POLLIN, 0};
  for (;;) {
    const int ready = ::poll(&p, 1, kAnswerTimeoutMs);
    if (ready == 0) return ETIMEDOUT;
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return errno;
    const ssize_t n = ::recv(fd(), buffer_.data(), buffer_.size(), 0);
    if (n >= 0) {
      size = static_cast<std::size_t>(n);
      return 0;
    }
    if (errno != EINTR && errno != EAGAIN) return errno;
  }
}

// Gathers the acknowledgements of sequence numbers first..last.
int NetlinkSocket::collect(std::uint32_t first, std::uint32_t last, std::vector<int>& each) {
  for (;;) {
    std::size_t size = 0;
    if (const int err = receive(size); err != 0) return err;
    int rest = static_cast<int>(size);
    for (auto* h = reinterpret_cast<nlmsghdr*>(buffer_.data()); nlmsg_ok(h, rest);
         h = nlmsg_next(h, &rest)) {
      if (h->nlmsg_type != NLMSG_ERROR || h->nlmsg_seq < first || h->nlmsg_seq > last) continue;
      const int err = -static_cast<const nlmsgerr*>(nlmsg_data(h))->error;
      each[h->nlmsg_seq - first] = err;
      if (h->nlmsg_seq == last) return 0;
    }
  }
}

int NetlinkSocket::request(Message& message) {
  const auto result = requests(std::span<Message>(&message, 1));
  return result[0];
}

std::vector<int> NetlinkSocket::requests(std::span<Message> messages) {
  std::vector<int> out(messages.size());
  std::vector<char> chunk;
  std::size_t begin = 0;
  while (begin < messages.size()) {
    chunk.clear();
    const std::uint32_t first = sequence_ + 1;
    std::size_t end = begin;
    while (end < messages.size() && (end == begin || chunk.size() < kChunk)) {
      nlmsghdr* h = messages[end].raw();
      h->nlmsg_seq = next_sequence();
      h->nlmsg_flags |= NLM_F_ACK;
      const auto* bytes = reinterpret_cast<const char*>(h);
      chunk.insert(chunk.end(), bytes, bytes + NLMSG_ALIGN(h->nlmsg_len));
      ++end;
    }
    std::vector<int> each(end - begin, ETIMEDOUT);
    int err = send(chunk.data(), chunk.size());
    if (err == 0) err = collect(first, sequence_, each);
    for (std::size_t i = begin; i < end; ++i) {
      out[i] = err != 0 && each[i - begin] == ETIMEDOUT ? err : each[i - begin];
    }
    begin = end;
  }
  return out;
}

int NetlinkSocket::get(Message& message, const std::function<void(const nlmsghdr*)>& each) {
  nlmsghdr* request = message.raw();
  request->nlmsg_flags |= NLM_F_ACK;
  request->nlmsg_seq = next_sequence();
  if (const int err = send(request, request->nlmsg_len); err != 0) return err;
  for (;;) {
    std::size_t size = 0;
    if (const int err = receive(size); err != 0) return err;
    int rest = static_cast<int>(size);
    for (auto* h = reinterpret_cast<nlmsghdr*>(buffer_.data()); nlmsg_ok(h, rest);
         h = nlmsg_next(h, &rest)) {
      if (h->nlmsg_seq != request->nlmsg_seq) continue;
      if (h->nlmsg_type == NLMSG_ERROR) return -static_cast<const nlmsgerr*>(nlmsg_data(h))->error;
      each(h);
    }
  }
}

int NetlinkSocket::dump(Message& message, const std::function<void(const nlmsghdr*)>& each,
                        const std::function<void()>& restart) {
  for (int attempt = 0; attempt < 20; ++attempt) {
    nlmsghdr* request = message.raw();
    request->nlmsg_flags |= NLM_F_DUMP;
    request->nlmsg_seq = next_sequence();
    if (const int err = send(request, request->nlmsg_len); err != 0) return err;
    bool interrupted = false;
    for (bool done = false; !done;) {
      std::size_t size = 0;
      if (const int err = receive(size); err != 0) return err;
      int rest = static_cast<int>(size);
      for (auto* h = reinterpret_cast<nlmsghdr*>(buffer_.data()); nlmsg_ok(h, rest);
           h = nlmsg_next(h, &rest)) {
        if (h->nlmsg_seq != request->nlmsg_seq) continue;
        if ((h->nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted = true;
        if (h->nlmsg_type == NLMSG_DONE) {
          done = true;
          int err = 0;
          if (nlmsg_datalen(h) >= static_cast<int>(sizeof(err))) {
            std::memcpy(&err, nlmsg_data(h), sizeof(err));
          }
          if (err == -EINTR) interrupted = true;
          if (err < 0 && err != -EINTR) return -err;
          break;
        }
        if (h->nlmsg_type == NLMSG_ERROR) {
          const int err = -static_cast<const nlmsgerr*>(nlmsg_data(h))->error;
          if (err != EINTR) return err;
          interrupted = done = true;
          break;
        }
        each(h);
      }
    }
    if (!interrupted) return 0;
    if (restart) restart();
  }
  return EINTR;
}

bool NetlinkSocket::BatchResult::ok() const {
  return whole == 0 && std::all_of(each.begin(), each.end(), [](int e) { return e == 0; });
}

NetlinkSocket::BatchResult NetlinkSocket::batch(std::span<Message> messages,
                                                std::uint16_t subsystem) {
  BatchResult out;
  out.each.assign(messages.size(), 0);
  if (messages.empty()) return out;
  std::size_t total = 2 * NLMSG_LENGTH(sizeof(nfgenmsg));
  for (const Message& m : messages) total += NLMSG_ALIGN(m.size());
  std::vector<char> datagram;
  datagram.reserve(total);
  const auto edge = [&](std::uint16_t type) {
    nlmsghdr h{};
    h.nlmsg_len = NLMSG_LENGTH(sizeof(nfgenmsg));
    h.nlmsg_type = type;
    h.nlmsg_flags = NLM_F_REQUEST;
    h.nlmsg_seq = next_sequence();
    nfgenmsg g{};
    g.nfgen_family = AF_UNSPEC;
    g.version = NFNETLINK_V0;
    g.res_id = htons(subsystem);
    const auto* hb = reinterpret_cast<const char*>(&h);
    const auto* gb = reinterpret_cast<const char*>(&g);
    datagram.insert(datagram.end(), hb, hb + sizeof(h));
    datagram.insert(datagram.end(), gb, gb + sizeof(g));
  };
  edge(NFNL_MSG_BATCH_BEGIN);
  const std::uint32_t opening = sequence_;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    nlmsghdr* h = messages[i].raw();
    h->nlmsg_seq = next_sequence();
    // Failures come unasked; the last message's acknowledgement says that the batch is through.
    if (i + 1 == messages.size()) h->nlmsg_flags |= NLM_F_ACK;
    const auto* bytes = reinterpret_cast<const char*>(h);
    datagram.insert(datagram.end(), bytes, bytes + NLMSG_ALIGN(h->nlmsg_len));
  }
  const std::uint32_t last = sequence_;
  edge(NFNL_MSG_BATCH_END);
  std::vector<int> each(messages.size() + 2, 0);
  out.whole = send(datagram.data(), datagram.size());
  if (out.whole == 0) out.whole = collect(opening, last, each);
  if (out.whole == 0) out.whole = each[0];
  std::copy(each.begin() + 1, each.end() - 1, out.each.begin());
  return out;
}

}  // namespace egw::common
