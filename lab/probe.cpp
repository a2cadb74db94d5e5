// egw-probe: the traffic of the one-machine cluster. `server` answers every UDP datagram and TCP
// message with the source address that it saw, and counts by a packet socket every source that
// reached its port; `client` sends one datagram per interval and reports the gap, the sources seen
// and TCP resets; `once` asks a single time. Results are JSON on stdout. Called by lab/*.py and the
// tests.
#include "probe.hpp"

#include <poll.h>
#include <sys/prctl.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace egw::probe {
namespace {

// Asks for the source address until an answer comes or the time is up; one datagram per 20 ms.
int once(const std::string& host, int port, double timeout_s) {
  const Endpoint to = endpoint(host, port);
  const Fd fd(socket(to.addr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd || connect(fd.get(), reinterpret_cast<const sockaddr*>(&to.addr), to.len) != 0)
    die("udp");
  const std::int64_t end = now_us() + static_cast<std::int64_t>(timeout_s * 1e6);
  const char question[16] = {};
  while (now_us() < end) {
    (void)send(fd.get(), question, sizeof question, 0);
    pollfd p{fd.get(), POLLIN, 0};
    if (poll(&p, 1, 20) != 1) continue;
    char buf[256];
    const ssize_t n = recv(fd.get(), buf, sizeof buf, 0);
    if (n < 17) continue;
    std::printf("%.*s\n", static_cast<int>(n) - 16, buf + 16);
    return 0;
  }
  std::fprintf(stderr, "egw-probe: no answer from %s port %d within %.1f s\n", host.c_str(), port,
               timeout_s);
  return 1;
}

constexpr const char* kUsage =
    "usage: egw-probe server [--port P]\n"
    "       egw-probe client --to ADDRESS [--port P] [--interval-us N] [--streams N] [--duration "
    "S]\n"
    "       egw-probe once --to ADDRESS [--port P] [--timeout S]\n";

int run(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  ClientOptions options;
  double timeout_s = 2;
  if (args.empty()) throw std::invalid_argument("a mode is missing");
  for (std::size_t i = 1; i < args.size(); i += 2) {
    if (i + 1 >= args.size()) throw std::invalid_argument(args[i] + ": a value is missing");
    const std::string& value = args[i + 1];
    if (args[i] == "--to")
      options.to = value;
    else if (args[i] == "--port")
      options.port = std::stoi(value);
    else if (args[i] == "--interval-us")
      options.interval_us = std::max(1, std::stoi(value));
    else if (args[i] == "--streams")
      options.streams = std::stoi(value);
    else if (args[i] == "--duration")
      options.duration_s = std::stod(value);
    else if (args[i] == "--timeout")
      timeout_s = std::stod(value);
    else
      throw std::invalid_argument("unknown option " + args[i]);
  }
  if (args[0] == "server") {
    run_server(options.port);
    return 0;
  }
  if (options.to.empty()) throw std::invalid_argument("--to is missing");
  if (args[0] == "once") return once(options.to, options.port, timeout_s);
  if (args[0] != "client") throw std::invalid_argument("unknown mode " + args[0]);
  prctl(PR_SET_PDEATHSIG, SIGTERM);  // no traffic outlives the test or lab that asked for it
  run_client(options);
  return 0;
}

}  // namespace
}  // namespace egw::probe

int main(int argc, char** argv) try {
  return egw::probe::run(argc, argv);
} catch (const std::invalid_argument& e) {
  std::fprintf(stderr, "egw-probe: %s\n%s", e.what(), egw::probe::kUsage);
  return 2;
} catch (const std::exception& e) {
  std::fprintf(stderr, "egw-probe: %s\n", e.what());
  return 1;
}
