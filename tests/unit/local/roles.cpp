// What the processes do that the tests start: each role is a function of its arguments and talks
// through standard input and output.
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <map>

#include "election.hpp"
#include "support.hpp"

namespace egw::local::test {

namespace {

using Arguments = std::vector<std::string>;

void tell(const std::string& line) {
  const std::string text = line + "\n";
  if (::write(STDOUT_FILENO, text.data(), text.size()) < 0) _exit(3);
}

std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

// DB NAME: raises spec.n of its object until it is killed, telling every value that was
// acknowledged.
int write_until_killed(const Arguments& a) {
  TestStore s(a[1]);
  const Answer found = s.get(gateway(), "", a[2]);
  std::uint64_t n = found.ok() ? found.object["spec"]["n"].get<std::uint64_t>() : 0;
  if (!found.ok() && !s.create(gateway(), "", a[2], {{"spec", {{"n", 0}}}}).ok()) return 1;
  for (;;) {
    ++n;
    const std::string padding(static_cast<std::size_t>(n % 7) * 700, 'x');
    const Answer done = s.update(gateway(), "", a[2], {{"spec", {{"n", n}, {"padding", padding}}}});
    if (!done.ok()) {
      std::cerr << done.status.text() << "\n";
      return 1;
    }
    tell(std::to_string(n) + " " + std::to_string(done.revision));
  }
}

// DB NAME TIMES: adds 1 to spec.n TIMES, reading again after each conflict.
int increment(const Arguments& a) {
  TestStore s(a[1]);
  const int times = std::stoi(a[3]);
  int conflicts = 0;
  for (int i = 0; i < times;) {
    const Answer read = s.get(gateway(), "", a[2]);
    if (!read.ok()) return 1;
    json wanted = read.object;
    wanted["spec"]["n"] = wanted["spec"]["n"].get<int>() + 1;
    TestStore::Options options;
    options.revision = read.revision;
    const Answer done = s.write(sdk::WriteOp::kUpdate, gateway(), "", a[2], wanted, options);
    if (done.ok()) {
      ++i;
    } else if (done.status.code == sdk::Code::kConflict) {
      ++conflicts;
    } else {
      std::cerr << done.status.text() << "\n";
      return 1;
    }
  }
  tell("conflicts " + std::to_string(conflicts));
  return 0;
}

// DB: tells "synced", then for every event of a gateway with spec.n the time (steady clock, ns).
int watch(const Arguments& a) {
  TestStore s(a[1]);
  const egw_event_sink sink{nullptr, [](void*, const egw_event* e) {
                              const std::uint64_t now = now_ns();
                              if (e->type == EGW_EVENT_SYNCED) tell("synced");
                              if (e->type != EGW_EVENT_UPSERT) return;
                              const json object = json::parse(sdk::view(e->object));
                              if (object.contains("spec")) tell(std::to_string(now));
                            }};
  sdk::Query q;
  q.kind = gateway();
  if (!s.store.subscribe(q, sdk::EventSink(sink)).ok()) return 1;
  std::string line;
  std::getline(std::cin, line);  // until the test lets go
  return 0;
}

// DB: as watch, in a network and a mount namespace of its own.
int watch_elsewhere(const Arguments& a) {
  if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0) return 1;
  return watch(a);
}

// DB: holds SQLite's write lock until told to end.
int hold_lock(const Arguments& a) {
  Connection connection(a[1]);
  Transaction transaction(connection, Transaction::Mode::kWrite);
  tell("locked");
  std::string line;
  std::getline(std::cin, line);
  return 0;
}

// DB IDENTITY STAMP_TIMEOUT [GATE]: stands for the office and tells what happens. Input: "write
// TERM" writes with that term and tells the status code; "resign"; anything else ends the process.
int campaign(const Arguments& a) {
  json config = {{"path", a[1]}, {"stampTimeout", std::stod(a[3])}};
  if (a.size() > 4) config["gate"] = a[4];
  TestStore store(a[1]);
  LocalElection election(config.dump(), a[2], sdk::Host());
  const egw_election_sink sink{
      nullptr, [](void*, std::uint64_t epoch) { tell("elected " + std::to_string(epoch)); },
      [](void*, egw_str reason) { tell("lost " + std::string(sdk::view(reason))); },
      [](void*, egw_str holder, std::uint64_t epoch) {
        tell("observed " + std::string(sdk::view(holder)) + " " + std::to_string(epoch));
      }};
  if (!election.campaign(sdk::ElectionSink(sink)).ok()) return 1;
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "resign") {
      election.resign();
      tell("resigned");
    } else if (line.substr(0, 6) == "write ") {
      TestStore::Options options;
      options.term = std::stoull(line.substr(6));
      const Answer answer = store.write(sdk::WriteOp::kUpdate, gateway(), "", "g",
                                        {{"spec", {{"by", a[2]}}}}, options);
      tell("wrote " + std::to_string(static_cast<int>(answer.status.code)));
    } else {
      break;
    }
  }
  return 0;
}

}  // namespace

int run_role(const std::vector<std::string>& arguments) {
  ::signal(SIGPIPE, SIG_DFL);
  const std::map<std::string, int (*)(const Arguments&)> roles = {
      {"write", write_until_killed},        {"increment", increment}, {"watch", watch},
      {"watch_elsewhere", watch_elsewhere}, {"hold_lock", hold_lock}, {"campaign", campaign}};
  const auto role = roles.find(arguments.at(0));
  if (role == roles.end()) return 2;
  try {
    return role->second(arguments);
  } catch (const std::exception& e) {
    std::cerr << arguments[0] << ": " << e.what() << "\n";
    return 1;
  }
}

}  // namespace egw::local::test
