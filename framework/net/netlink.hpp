// What boot_drop.cpp and interfaces.cpp need of libnl: owners of its objects, words for its errors.
#pragma once

#include <netlink/addr.h>
#include <netlink/cache.h>
#include <netlink/errno.h>
#include <netlink/route/rule.h>
#include <netlink/socket.h>

#include <memory>
#include <string>

#include "egw/model/result.hpp"

namespace egw::net {

struct NetlinkFree {
  void operator()(nl_sock* socket) const { nl_socket_free(socket); }
  void operator()(nl_cache* cache) const { nl_cache_free(cache); }
  void operator()(nl_addr* address) const { nl_addr_put(address); }
  void operator()(rtnl_rule* rule) const { rtnl_rule_put(rule); }
};
using NetlinkSocket = std::unique_ptr<nl_sock, NetlinkFree>;

// kUnavailable. whose: of the message; code: libnl's, negative.
[[nodiscard]] inline tl::unexpected<Error> netlink_error(const char* whose, const std::string& what,
                                                         int code) {
  return fail(Errc::kUnavailable, whose, what + ": " + nl_geterror(code));
}

}  // namespace egw::net
