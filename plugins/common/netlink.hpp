// A netlink socket (libnl) with the three things that our datapaths do: a request with its
// acknowledgement, a dump, and many messages in few system calls. Used by everything in
// plugins/common and by plugins that talk nfnetlink themselves.
#pragma once

#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "egw/sdk/status.hpp"
#include "egw/sdk/views.hpp"

namespace egw::common {

// One message under construction; owns its bytes.
class Message {
 public:
  // flags: NLM_F_REQUEST is added. reserve: bytes of room; a message does not grow.
  Message(int type, int flags, std::size_t reserve = 512);

  template <class T>
  Message& header(const T& value) {
    append(&value, sizeof(value));
    return *this;
  }
  Message& attr(int type, const void* data, std::size_t size);
  Message& u8(int type, std::uint8_t v) { return attr(type, &v, sizeof(v)); }
  Message& u16(int type, std::uint16_t v) { return attr(type, &v, sizeof(v)); }
  Message& u32(int type, std::uint32_t v) { return attr(type, &v, sizeof(v)); }
  Message& be16(int type, std::uint16_t v);
  Message& be32(int type, std::uint32_t v);
  Message& text(int type, std::string_view v);  // with the NUL that the kernel wants
  Message& address(int type, const sdk::Address& a);
  // begin returns what end takes.
  nlattr* begin(int type);
  Message& end(nlattr* nest);

  [[nodiscard]] nlmsghdr* raw() const { return nlmsg_hdr(msg_.get()); }
  [[nodiscard]] std::size_t size() const { return raw()->nlmsg_len; }

 private:
  void append(const void* data, std::size_t size);
  struct Free {
    void operator()(nl_msg* m) const { nlmsg_free(m); }
  };
  std::unique_ptr<nl_msg, Free> msg_;
};

// Attributes of a received message by type; index 0..max.
class Attributes {
 public:
  Attributes(const nlmsghdr* message, std::size_t header, int max);
  Attributes(const nlattr* nest, int max);

  Attributes(const Attributes&) = delete;
  Attributes& operator=(const Attributes&) = delete;

  [[nodiscard]] const nlattr* operator[](int type) const {
    return table_[static_cast<std::size_t>(type)];
  }
  [[nodiscard]] bool has(int type) const { return (*this)[type] != nullptr; }
  // 0 when the attribute is absent or too short.
  [[nodiscard]] std::uint32_t u32(int type) const;
  [[nodiscard]] std::uint32_t be32(int type) const;
  [[nodiscard]] std::uint16_t be16(int type) const;
  [[nodiscard]] std::uint8_t u8(int type) const;
  [[nodiscard]] std::string_view text(int type) const;
  [[nodiscard]] std::string_view bytes(int type) const;
  [[nodiscard]] sdk::Address address(int type) const;  // 4 or 16 bytes, else none

 private:
  explicit Attributes(int max);
  void parse(const nlattr* first, int length);

  // Elements of sets come by the ten thousand, with few types each: no memory is asked for them.
  static constexpr std::size_t kUsual = 16;
  std::array<const nlattr*, kUsual> usual_{};
  std::vector<const nlattr*> many_;
  std::span<const nlattr*> table_;
};

[[nodiscard]] std::string_view bytes_of(const nlattr* attribute);

// Not for several threads at once.
class NetlinkSocket {
 public:
  // protocol: NETLINK_ROUTE, NETLINK_NETFILTER.
  static sdk::Outcome<NetlinkSocket> open(int protocol);

  // Sends, waits for the acknowledgement. 0 or a positive errno.
  int request(Message& message);
  // A request with at most a few answers before its acknowledgement.
  int get(Message& message, const std::function<void(const nlmsghdr*)>& each);
  // Acknowledged messages in few system calls; the i-th errno belongs to the i-th message.
  std::vector<int> requests(std::span<Message> messages);
  // Calls `each` for every answer; repeats when the kernel says that the dump was interrupted
  // (`restart` then tells the caller to forget what it got). 0 or a positive errno.
  int dump(Message& message, const std::function<void(const nlmsghdr*)>& each,
           const std::function<void()>& restart = {});
  // One nfnetlink batch in one system call: all or nothing. The i-th errno belongs to the i-th
  // message; failure of the whole (e.g. no memory) is in `whole`.
  struct BatchResult {
    int whole = 0;
    std::vector<int> each;
    [[nodiscard]] bool ok() const;
  };
  BatchResult batch(std::span<Message> messages, std::uint16_t subsystem);

  [[nodiscard]] std::uint32_t port() const { return nl_socket_get_local_port(sock_.get()); }
  [[nodiscard]] int fd() const { return nl_socket_get_fd(sock_.get()); }

 private:
  struct Free {
    void operator()(nl_sock* s) const { nl_socket_free(s); }
  };
  explicit NetlinkSocket(nl_sock* sock) : sock_(sock) {}
  std::uint32_t next_sequence() { return ++sequence_; }
  int send(const void* data, std::size_t size);
  // Reads one datagram into buffer_; errno or 0.
  int receive(std::size_t& size);
  int collect(std::uint32_t first, std::uint32_t last, std::vector<int>& each);

  std::unique_ptr<nl_sock, Free> sock_;
  std::uint32_t sequence_ = 0;
  std::vector<char> buffer_;
};

}  // namespace egw::common
