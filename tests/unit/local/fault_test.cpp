// The file removed, replaced, locked, damaged, foreign, on a full disk: each one a clear sentence,
// never a crash, and nothing acknowledged is lost.
#include <gmock/gmock.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "election.hpp"
#include "support.hpp"

namespace egw::local::test {
namespace {

namespace fs = std::filesystem;
using sdk::Code;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

sdk::Status open_error(const std::string& path) {
  try {
    const TestStore s(path);
  } catch (const sdk::Failure& failure) {
    return failure.status();
  }
  return sdk::ok();
}

TEST(Faults, RemovedFileStopsWritesUntilItIsBack) {
  const Folder folder;
  TestStore s(folder.db());
  ASSERT_TRUE(s.create(gateway(), "", "a", json::object()).ok());
  Recorder r(s.store, gateway());
  ASSERT_TRUE(r.wait("SYNCED"));
  fs::rename(folder.db(), folder.file("away"));
  ASSERT_TRUE(r.wait("DISCONNECTED"));
  EXPECT_THAT(r.events().back().message, AllOf(HasSubstr(folder.db()), HasSubstr("Put it back")));
  const Answer a = s.create(gateway(), "", "b", json::object());
  EXPECT_EQ(a.status.code, Code::kUnavailable);
  EXPECT_THAT(a.status.text(), AllOf(HasSubstr(folder.db()), HasSubstr("Put it back")));
  // A newcomer does not make an empty store under the feet of those that have the old one open.
  const sdk::Status newcomer = open_error(folder.db());
  EXPECT_EQ(newcomer.code, Code::kUnavailable);
  EXPECT_THAT(newcomer.message, HasSubstr("removed while in use"));
  EXPECT_FALSE(fs::exists(folder.db()));

  fs::rename(folder.file("away"), folder.db());
  ASSERT_TRUE(r.wait("SYNCED"));
  EXPECT_THAT(r.take(), ElementsAre("SNAPSHOT", "UPSERT a", "SYNCED", "DISCONNECTED", "SNAPSHOT",
                                    "UPSERT a", "SYNCED"));
  EXPECT_TRUE(s.create(gateway(), "", "b", json::object()).ok());
}

// The old database's log lies beside the backup and must not be played into it.
TEST(Faults, ABackupMovedOverTheDatabaseIsTakenAsItIs) {
  const Folder folder;
  {
    TestStore s(folder.db());
    ASSERT_TRUE(s.create(gateway(), "", "from-backup", json::object()).ok());
  }
  fs::copy_file(folder.db(), folder.file("backup"));
  TestStore s(folder.db());
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(s.create(gateway(), "", "later-" + std::to_string(i), json::object()).ok());
  }
  Recorder r(s.store, gateway());
  ASSERT_TRUE(r.wait("SYNCED"));
  r.take();
  fs::rename(folder.file("backup"), folder.db());
  ASSERT_TRUE(r.wait("SYNCED"));
  EXPECT_THAT(r.take(), ElementsAre("DISCONNECTED", "SNAPSHOT", "UPSERT from-backup", "SYNCED"));
  const Answer first = s.create(gateway(), "", "b", json::object());
  EXPECT_EQ(first.status.code, Code::kUnavailable) << "this write was decided on the old content";
  EXPECT_THAT(first.status.message, HasSubstr("replaced"));
  EXPECT_TRUE(s.create(gateway(), "", "b", json::object()).ok());
  ASSERT_TRUE(r.wait("UPSERT b"));
  Connection c(folder.db());
  EXPECT_EQ(c.query_text("PRAGMA integrity_check"), "ok");
}

TEST(Faults, RemovedByHandAndStartedAgainBeginsEmpty) {
  const Folder folder;
  {
    TestStore s(folder.db());
    ASSERT_TRUE(s.create(gateway(), "", "a", json::object()).ok());
  }
  fs::remove(folder.db());
  TestStore s(folder.db());
  EXPECT_EQ(s.get(gateway(), "", "a").status.code, Code::kNotFound);
}

// All files of the store are removed under a process that has it open: neither one that only looks
// nor one that may make a store makes an empty one, which would look like an order to remove all.
TEST(Faults, NobodyMakesAStoreWhileTheRemovedOneIsInUse) {
  const Folder folder;
  Process user({"watch", folder.db()});
  ASSERT_EQ(user.line(), "synced");
  for (const char* file : {"", "-wal", "-shm", "-signal", "-leader"}) {
    fs::remove(folder.db() + file);
  }
  const sdk::Status newcomer = open_error(folder.db());
  EXPECT_EQ(newcomer.code, Code::kUnavailable);
  EXPECT_THAT(newcomer.text(), AllOf(HasSubstr(folder.db()), HasSubstr("removed while in use")));
  EXPECT_FALSE(fs::exists(folder.db()));
  user.signal(SIGKILL);
  user.wait();
  EXPECT_TRUE(open_error(folder.db()).ok()) << "nobody has the old one open any more";
}

// What is put back comes file by file. Between the database and its log it looks complete, and is
// not: who opened it then would lose what the log has, and make another one that destroys it.
TEST(Faults, ADatabaseIsNotOpenedBeforeItsLogIsBack) {
  const Folder folder;
  TestStore s(folder.db());
  Recorder r(s.store, gateway());
  ASSERT_TRUE(r.wait("SYNCED"));
  ASSERT_TRUE(s.create(gateway(), "", "a", json::object()).ok());
  ASSERT_TRUE(r.wait("UPSERT a"));
  for (const char* last : {"-wal", "-shm"}) {
    r.take();
    for (const char* file : {"", "-wal", "-shm"}) {
      fs::rename(folder.db() + file, folder.file("away") + file);
    }
    ASSERT_TRUE(r.wait("DISCONNECTED"));
    ASSERT_FALSE(s.create(gateway(), "", "early", json::object()).ok());
    for (const char* file : {"", "-wal", "-shm"}) {
      if (std::string(file) == last) continue;
      fs::rename(folder.file("away") + file, folder.db() + file);
    }
    const sdk::Status newcomer = open_error(folder.db());
    EXPECT_EQ(newcomer.code, Code::kUnavailable);
    EXPECT_THAT(newcomer.text(), AllOf(HasSubstr(folder.db()), HasSubstr("Put all three back")));
    const Answer early = s.create(gateway(), "", "early", json::object());
    EXPECT_EQ(early.status.code, Code::kUnavailable);
    EXPECT_THAT(early.status.text(), HasSubstr("Put all three back"));
    EXPECT_FALSE(fs::exists(folder.db() + last));
    fs::rename(folder.file("away") + last, folder.db() + last);
    ASSERT_TRUE(r.wait("SYNCED"));
    EXPECT_THAT(r.take(), ElementsAre("DISCONNECTED", "SNAPSHOT", "UPSERT a", "SYNCED"));
  }
  EXPECT_TRUE(open_error(folder.db()).ok());
  EXPECT_TRUE(s.create(gateway(), "", "b", json::object()).ok());
  Connection c(folder.db());
  EXPECT_EQ(c.query_text("PRAGMA integrity_check"), "ok");
}

// The last one that closes it leaves no log, which is no reason to wait for one: another that holds
// no session at the moment keeps nobody out.
TEST(Faults, ADatabaseThatWasClosedNeedsNoLog) {
  const Folder folder;
  Process user({"watch", folder.db()});
  ASSERT_EQ(user.line(), "synced");
  { TestStore s(folder.db()); }
  user.signal(SIGTERM);
  user.wait();
  for (int i = 0; i < 3; ++i) {
    TestStore s(folder.db());
    EXPECT_TRUE(s.create(gateway(), "", "a" + std::to_string(i), json::object()).ok());
    TestStore beside(folder.db());
    EXPECT_TRUE(beside.get(gateway(), "", "a" + std::to_string(i)).status.ok());
  }
}

TEST(Faults, WhoOnlyLooksMakesNoStore) {
  const Folder folder;
  TestHost host;
  host.existing_only = true;
  const std::string config = json{{"path", folder.file("sub/egw.db")}}.dump();
  try {
    const LocalStore looks(config, host.services());
    FAIL() << "opened a store that is not there";
  } catch (const sdk::Failure& failure) {
    EXPECT_EQ(failure.status().code, Code::kUnavailable);
    EXPECT_THAT(failure.status().text(),
                AllOf(HasSubstr(folder.file("sub/egw.db")), HasSubstr("does not exist")));
  }
  EXPECT_FALSE(fs::exists(folder.file("sub")));
  { const TestStore made(folder.file("sub/egw.db")); }
  EXPECT_NO_THROW(LocalStore(config, host.services()));
}

// A link to the file, a link to its folder, and a link to a file that does not exist yet are the
// file: signals, presence and the leader's lock lie beside it alone.
TEST(Faults, ALinkIsTheFileThatItLeadsTo) {
  const Folder folder;
  fs::create_directory(folder.file("real"));
  fs::create_symlink("real/egw.db", folder.file("link.db"));
  fs::create_directory_symlink(folder.file("real"), folder.file("there"));
  TestStore first(folder.file("link.db"));
  TestStore second(folder.file("there/egw.db"));
  Recorder r(first.store, gateway());
  ASSERT_TRUE(r.wait("SYNCED"));
  ASSERT_TRUE(second.create(gateway(), "", "a", json::object()).ok());
  ASSERT_TRUE(r.wait("UPSERT a"));
  EXPECT_TRUE(fs::is_regular_file(folder.file("real/egw.db-signal")));
  EXPECT_FALSE(fs::exists(folder.file("link.db-signal")));
  EXPECT_EQ(parse_election_config(json{{"path", folder.file("link.db")}}.dump()).path,
            parse_store_config(json{{"path", folder.file("there/egw.db")}}.dump()).path);
}

TEST(Faults, AStoreInTheHandsOfOthersIsRefused) {
  const Folder folder;
  const std::string db = folder.file("sub/egw.db");
  { const TestStore made(db); }
  const auto refused = [&](const std::string& what, mode_t mode, mode_t good, const char* words) {
    fs::permissions(what, static_cast<fs::perms>(mode));
    const sdk::Status status = open_error(db);
    EXPECT_EQ(status.code, Code::kInvalid) << what;
    EXPECT_THAT(status.text(), AllOf(HasSubstr(what), HasSubstr(words), HasSubstr("chmod go-w")));
    fs::permissions(what, static_cast<fs::perms>(good));
    EXPECT_TRUE(open_error(db).ok()) << open_error(db).text();
  };
  refused(folder.file("sub"), 0777, 0700, "written by everybody");
  refused(folder.file("sub"), 0770, 0755, "written by its group");
  refused(db, 0666, 0644, "written by everybody");
  refused(db, 0660, 0600, "written by its group");
  refused(db + "-signal", 0666, 0600, "written by everybody");
  fs::permissions(folder.file("sub"), static_cast<fs::perms>(01777));
  EXPECT_TRUE(open_error(db).ok()) << "as /tmp: others add files there and cannot touch ours";
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to give files away";
  for (const std::string& what : {folder.file("sub"), db}) {
    ASSERT_EQ(::chown(what.c_str(), 4711, 4711), 0);
    EXPECT_THAT(open_error(db).text(), AllOf(HasSubstr(what), HasSubstr("user 4711")));
    ASSERT_EQ(::chown(what.c_str(), 0, 0), 0);
  }
}

TEST(Faults, LockedBySomebodyNamesHimWithinTheDeadline) {
  const Folder folder;
  TestStore s(folder.db());
  Process holder({"hold_lock", folder.db()});
  ASSERT_EQ(holder.line(), "locked");
  TestStore::Options options;
  options.deadline = 150ms;
  const auto begin = std::chrono::steady_clock::now();
  const Answer a = s.write(sdk::WriteOp::kCreate, gateway(), "", "a", json::object(), options);
  const auto took = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(a.status.code, Code::kUnavailable);
  EXPECT_THAT(a.status.text(),
              AllOf(HasSubstr(folder.db()),
                    HasSubstr("locked by process " + std::to_string(holder.pid()))));
  EXPECT_GE(took, 140ms);
  EXPECT_LT(took, 1s);
  EXPECT_EQ(s.get(gateway(), "", "a").status.code, Code::kNotFound) << "reading goes on";
  holder.say("end");
  EXPECT_EQ(holder.wait(), 0);
  EXPECT_TRUE(s.create(gateway(), "", "a", json::object()).ok());
}

// What it would have been written into nobody reads any more.
TEST(Faults, AWriteThatWaitsWhileTheDatabaseIsReplacedIsNotAcknowledged) {
  const Folder folder;
  {
    TestStore s(folder.db());
    ASSERT_TRUE(s.create(gateway(), "", "from-backup", json::object()).ok());
  }
  fs::copy_file(folder.db(), folder.file("backup"));
  TestStore s(folder.db());
  ASSERT_TRUE(s.list(gateway()).status.ok());
  Process holder({"hold_lock", folder.db()});
  ASSERT_EQ(holder.line(), "locked");
  auto waiting = std::async(std::launch::async, [&] {
    TestStore::Options options;
    options.deadline = 5s;
    return s.write(sdk::WriteOp::kCreate, gateway(), "", "a", json::object(), options);
  });
  EXPECT_EQ(waiting.wait_for(200ms), std::future_status::timeout) << "it waits for the lock";
  fs::rename(folder.file("backup"), folder.db());
  holder.say("end");
  const Answer a = waiting.get();
  EXPECT_EQ(a.status.code, Code::kUnavailable);
  EXPECT_THAT(a.status.message, HasSubstr("replaced"));
}

TEST(Faults, AFileThatIsNoDatabaseIsRefused) {
  const Folder folder;
  std::ofstream(folder.db()) << std::string(8192, 'x');
  const sdk::Status status = open_error(folder.db());
  EXPECT_EQ(status.code, Code::kInvalid);
  EXPECT_EQ(status.what, folder.db());
  EXPECT_THAT(status.message, AllOf(HasSubstr("file is not a database"), HasSubstr("backup")));
}

TEST(Faults, DamageIsFoundAtTheOpening) {
  const Folder folder;
  {
    TestStore s(folder.db());
    for (int i = 0; i < 300; ++i) {
      ASSERT_TRUE(s.create(gateway(), "", "g" + std::to_string(i), {{"spec", "some text"}}).ok());
    }
  }
  {
    std::fstream file(folder.db(), std::ios::in | std::ios::out | std::ios::binary);
    for (int page = 3; page < 12; ++page) {
      file.seekp(page * 4096);
      file << std::string(4000, '\x5a');
    }
  }
  const sdk::Status status = open_error(folder.db());
  EXPECT_EQ(status.code, Code::kInvalid);
  EXPECT_THAT(status.text(), AllOf(HasSubstr(folder.db()), HasSubstr("damaged")));
}

TEST(Faults, DamageInOperationDisconnectsAndMendingConnects) {
  const Folder folder;
  TestStore s(folder.db());
  ASSERT_TRUE(s.create(gateway(), "", "a", json::object()).ok());
  Recorder r(s.store, gateway());
  ASSERT_TRUE(r.wait("SYNCED"));
  std::ofstream(folder.file("garbage")) << std::string(8192, 'x');
  fs::rename(folder.db(), folder.file("away"));
  fs::rename(folder.file("garbage"), folder.db());
  ASSERT_TRUE(r.wait("DISCONNECTED"));
  for (int i = 0; i < 3; ++i) {
    const Answer a = s.create(gateway(), "", "b", json::object());
    EXPECT_EQ(a.status.code, Code::kUnavailable) << a.status.text();
  }
  EXPECT_THAT(s.store.health().text(), HasSubstr("not a database"));
  fs::rename(folder.file("away"), folder.db());
  ASSERT_TRUE(r.wait("SYNCED"));
  while (!s.store.health().ok()) {
  }
  EXPECT_TRUE(s.create(gateway(), "", "b", json::object()).ok());
}

TEST(Faults, OtherProgramsAndNewerDatabasesAreRefused) {
  const Folder folder;
  const auto make = [&](const char* name, const char* sql) {
    { std::ofstream(folder.file(name)); }
    Connection c(folder.file(name));
    c.exec(sql);
    return folder.file(name);
  };
  const sdk::Status foreign = open_error(make("foreign.db", "CREATE TABLE t (a)"));
  EXPECT_EQ(foreign.code, Code::kInvalid);
  EXPECT_THAT(foreign.message, HasSubstr("another program"));
  { const TestStore s(folder.db()); }
  { Connection(folder.db()).exec("PRAGMA user_version = 7"); }
  const sdk::Status newer = open_error(folder.db());
  EXPECT_EQ(newer.code, Code::kInvalid);
  EXPECT_THAT(newer.message, AllOf(HasSubstr("version 7"), HasSubstr("newer egw")));
}

TEST(Faults, AFolderThatCannotBeMadeIsNamed) {
  const Folder folder;
  std::ofstream(folder.file("file")) << "";
  const sdk::Status status = open_error(folder.file("file/egw.db"));
  EXPECT_EQ(status.code, Code::kInvalid);
  EXPECT_THAT(status.text(), AllOf(HasSubstr(folder.file("file")), HasSubstr("Not a directory")));
}

// Fills until a write is refused; answers whether all that was acknowledged is there after opening
// the store again, and whether the words fit.
int fill_until_full(const std::string& path) {
  std::vector<std::string> stored;
  sdk::Status refusal;
  {
    TestStore s(path);
    for (int i = 0; i < 2000 && refusal.ok(); ++i) {
      const std::string name = "g" + std::to_string(i);
      const Answer a = s.create(gateway(), "", name, {{"spec", std::string(20'000, 'x')}});
      if (a.ok()) stored.push_back(name);
      refusal = a.status;
    }
    if (refusal.code != Code::kUnavailable) return 10;
    if (refusal.message.find("no space left") == std::string::npos) return 11;
    if (refusal.what != path) return 12;
    for (const std::string& name : stored) {
      if (!s.get(gateway(), "", name).ok()) return 13;
    }
    if (s.create(gateway(), "", "again", {{"spec", std::string(20'000, 'x')}}).ok()) return 14;
  }
  if (stored.size() < 5) return 15;
  TestStore again(path);
  for (const std::string& name : stored) {
    if (!again.get(gateway(), "", name).ok()) return 16;
  }
  return again.list(gateway()).objects.size() == stored.size() ? 0 : 17;
}

// Runs the body in a process of its own, so that limits and mounts end with it.
int in_child(const std::function<int()>& body) {
  std::fflush(stdout);
  const pid_t pid = ::fork();
  if (pid == 0) {
    int code = 99;
    try {
      code = body();
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s\n", e.what());
    }
    _exit(code);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(Faults, FileSizeLimit) {
  const Folder folder;
  EXPECT_EQ(in_child([&] {
              ::signal(SIGXFSZ, SIG_IGN);
              const struct rlimit limit = {1'500'000, 1'500'000};
              if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 50;
              return fill_until_full(folder.db());
            }),
            0);
}

double cpu_seconds() {
  struct rusage used = {};
  ::getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

// A candidate that cannot write its name waits, as the others do.
TEST(Faults, NobodyStandsForTheOfficeWithoutPauseOnAFullDisk) {
  const Folder folder;
  { TestStore s(folder.db()); }
  EXPECT_EQ(in_child([&] {
              ::signal(SIGXFSZ, SIG_IGN);
              LocalElection election(json{{"path", folder.db()}}.dump(), "a", sdk::Host());
              if (!election.health().ok() && election.health().code != Code::kNotFound) return 60;
              const struct rlimit limit = {4096, 4096};
              if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 50;
              std::atomic<int> elected{0};
              const egw_election_sink sink{
                  &elected,
                  [](void* ctx, std::uint64_t) { ++*static_cast<std::atomic<int>*>(ctx); },
                  [](void*, egw_str) {}, [](void*, egw_str, std::uint64_t) {}};
              const double before = cpu_seconds();
              if (!election.campaign(sdk::ElectionSink(sink)).ok()) return 61;
              std::this_thread::sleep_for(2s);
              const double used = cpu_seconds() - before;
              election.resign();
              if (elected != 0) return 62;
              std::printf("%.2f s of CPU in 2 s\n", used);
              return used < 0.5 ? 0 : 63;
            }),
            0);
}

TEST(Faults, FullDisk) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root for a small file system of its own";
  const Folder folder;
  EXPECT_EQ(in_child([&] {
              const std::string disk = folder.file("disk");
              fs::create_directory(disk);
              if (::unshare(CLONE_NEWNS) != 0) return 51;
              if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 52;
              if (::mount("egw", disk.c_str(), "tmpfs", 0, "size=1500k") != 0) return 53;
              return fill_until_full(disk + "/egw.db");
            }),
            0);
}

}  // namespace
}  // namespace egw::local::test
