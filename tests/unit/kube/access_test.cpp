// The way to the API server: kubeconfig files, a pod's service account, credential programs.
#include "access.hpp"

#include <gmock/gmock.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base64.hpp"
#include "credentials.hpp"

namespace egw::kube {
namespace {

using testing::HasSubstr;

class KubeAccess : public testing::Test {
 protected:
  KubeAccess() {
    std::string name = "/tmp/egw-access-XXXXXX";
    folder = ::mkdtemp(name.data());
    for (const char* variable : {"KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HOME"}) {
      ::unsetenv(variable);
    }
  }
  ~KubeAccess() override { std::filesystem::remove_all(folder); }
  std::string write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(folder + "/" + name).parent_path());
    std::ofstream(folder + "/" + name) << text;
    return folder + "/" + name;
  }
  // What it says about a kubeconfig that it refuses.
  std::string refusal(const std::string& text, const std::string& context = "") const {
    try {
      (void)read_kubeconfig(write("refused", text), context);
    } catch (const sdk::Failure& failure) {
      EXPECT_EQ(failure.status().code, sdk::Code::kInvalid);
      return failure.what();
    }
    return "accepted";
  }
  std::string folder;
};

// Long enough for any program here.
CredentialSource::Time soon() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(10);
}

// Read by nobody here.
constexpr const char* kAuthority = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";
constexpr const char* kConfig = R"(apiVersion: v1
kind: Config
current-context: lab
clusters:
- name: c1
  cluster: {server: "https://10.0.0.1:6443/", certificate-authority: ca.pem, tls-server-name: kubernetes}
users:
- name: u1
  user: {tokenFile: secrets/token}
- name: u2
  user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}
contexts:
- name: lab
  context: {cluster: c1, user: u1, namespace: egw-system}
- name: other
  context: {cluster: c1, user: u2}
)";

TEST_F(KubeAccess, KubeconfigWithFilesBesideIt) {
  const std::string ca = write("ca.pem", kAuthority);
  const std::string token = write("secrets/token", "abc\n");
  const Access a = read_kubeconfig(write("config", kConfig), "");
  EXPECT_EQ(a.server.url, "https://10.0.0.1:6443");
  EXPECT_EQ(a.ca_file, ca);
  EXPECT_EQ(a.server.tls_name, "kubernetes");
  EXPECT_FALSE(a.server.insecure);
  EXPECT_EQ(a.token_file, token);
  EXPECT_EQ(a.ns, "egw-system");
  EXPECT_THAT(a.origin, HasSubstr("context lab"));
  CredentialSource source(a);
  EXPECT_EQ(source.get(soon()).value().token, "abc");
  write("secrets/token", "rotated");
  EXPECT_EQ(source.get(soon()).value().token, "rotated");
  EXPECT_EQ(source.get(soon()).value().ca, kAuthority);
  write("ca.pem", std::string(kAuthority) + "and another\n");
  EXPECT_THAT(source.get(soon()).value().ca, HasSubstr("and another"));
  for (const std::string& file : {ca, token}) {
    std::filesystem::rename(file, file + ".away");
    EXPECT_THAT(source.get(soon()).status().text(), HasSubstr(file));
    std::filesystem::rename(file + ".away", file);
  }
  const Access b = read_kubeconfig(folder + "/config", "other");
  EXPECT_EQ(b.certificate, "cert");
  EXPECT_EQ(b.key, "key");
  EXPECT_EQ(b.ns, "default");
}

TEST_F(KubeAccess, OfAListTheFirstEntryOfANameCounts) {
  const std::string first = write("first", R"(
clusters: [{name: c1, cluster: {server: "https://first"}}]
)");
  const std::string second = write("second", R"(
current-context: x
clusters: [{name: c1, cluster: {server: "https://second"}}]
contexts: [{name: x, context: {cluster: c1}}]
)");
  EXPECT_EQ(read_kubeconfig(first + ":/does/not/exist:" + second, "").server.url, "https://first");
  ::setenv("KUBECONFIG", (second + ":" + first).c_str(), 1);
  EXPECT_EQ(find_access({"", "", "/none"}).server.url, "https://second");
  EXPECT_EQ(find_access({first + ":" + second, "x", "/none"}).server.url, "https://first");
}

TEST_F(KubeAccess, RefusalsNameFileAndKey) {
  EXPECT_THAT(refusal("a: ["), HasSubstr("no YAML"));
  EXPECT_THAT(refusal("[1]"), HasSubstr("no map"));
  EXPECT_THAT(refusal("{}"), HasSubstr("current-context"));
  EXPECT_THAT(refusal(kConfig, "none"), HasSubstr("no entry \"none\" among its contexts"));
  EXPECT_THAT(refusal("contexts: [{name: x, context: {cluster: c}}]", "x"),
              HasSubstr("no entry \"c\" among its clusters"));
  const std::string context = "contexts: [{name: x, context: {cluster: c, user: u}}]\n";
  const std::string cluster = context + "clusters: [{name: c, cluster: {server: \"https://h\"}}]\n";
  EXPECT_THAT(refusal(context + "clusters: [{name: c, cluster: {server: h}}]", "x"),
              HasSubstr("clusters[c].cluster.server must begin with https://"));
  EXPECT_THAT(refusal(cluster + "users: [{name: u, user: {username: a, password: b}}]", "x"),
              HasSubstr("users[u].user.username is not supported"));
  EXPECT_THAT(refusal(cluster + "users: [{name: u, user: {client-key-data: a2V5}}]", "x"),
              HasSubstr("must be given together"));
  EXPECT_THAT(refusal(cluster + "users: [{name: u, user: {client-key-data: '*'}}]", "x"),
              HasSubstr("client-key-data is no base64"));
  EXPECT_THAT(refusal(cluster + "users: [{name: u, user: {exec: {command: a}}}]", "x"),
              HasSubstr("exec.apiVersion"));
  EXPECT_THAT(refusal(std::string(2000, '[')), HasSubstr("nested too deeply"));
  try {
    (void)find_access({"", "", folder + "/none"});
    ADD_FAILURE() << "there is no way to a server";
  } catch (const sdk::Failure& failure) {
    EXPECT_THAT(failure.what(), HasSubstr("no way to an API server"));
  }
}

TEST_F(KubeAccess, ServiceAccountOfAPod) {
  write("sa/token", "t1\n");
  write("sa/ca.crt", kAuthority);
  write("sa/namespace", "kube-system\n");
  ::setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
  ::setenv("KUBERNETES_SERVICE_PORT", "6443", 1);
  const Access a = find_access({"", "", folder + "/sa"});
  EXPECT_EQ(a.server.url, "https://[fd00::1]:6443");
  EXPECT_EQ(a.ns, "kube-system");
  CredentialSource source(a);
  EXPECT_EQ(source.get(soon()).value().token, "t1");
  write("sa/token", "t2, longer\n");
  EXPECT_FALSE(source.get(soon()).ok()) << "a token with blanks would be a forged header";
  write("sa/token", "t3");
  EXPECT_EQ(source.get(soon()).value().token, "t3");
  EXPECT_EQ(source.get(soon()).value().ca, kAuthority);
  write("sa/ca.crt", "");
  EXPECT_THAT(source.get(soon()).status().text(),
              HasSubstr("/sa/ca.crt: there is no certificate in it"))
      << "the system's authorities are not meant";
}

TEST_F(KubeAccess, WhatKubectlTakesIsTaken) {
  const std::string empty = write("empty", "# nothing yet\n");
  write("ca.pem", kAuthority);
  const std::string config = write("config", kConfig);
  EXPECT_EQ(read_kubeconfig(empty + ":" + config, "").server.url, "https://10.0.0.1:6443");
  std::string many = R"({"current-context":"c9","clusters":[)";
  for (int i = 0; i < 600; ++i) {
    many += (i == 0 ? "" : ",") + (R"({"name":"c)" + std::to_string(i)) +
            R"(","cluster":{"server":"https://h)" + std::to_string(i) + "\"}}";
  }
  many += R"(],"contexts":[{"name":"c9","context":{"cluster":"c9","user":"u"}}],)"
          R"("users":[{"name":"u","user":{"token":"t","auth-provider":null,"username":""}}]})";
  const Access a = read_kubeconfig(write("many", many), "");
  EXPECT_EQ(a.server.url, "https://h9");
  EXPECT_EQ(a.token, "t");
}

TEST_F(KubeAccess, WhatKubectlRefusesIsRefused) {
  const std::string context = "contexts: [{name: x, context: {cluster: c, user: u}}]\n";
  EXPECT_THAT(refusal(context + "clusters: [{name: c, cluster: {server: \"https://h\", "
                                "insecure-skip-tls-verify: true, "
                                "certificate-authority-data: Y2VydA==}}]",
                      "x"),
              HasSubstr("clusters[c].cluster: a certificate authority and insecure-skip-tls"));
  const std::string cluster = context + "clusters: [{name: c, cluster: {server: \"https://h\"}}]\n";
  for (const std::string key : {"password: b", "as-user-extra: {a: [b]}"}) {
    EXPECT_THAT(refusal(cluster + "users: [{name: u, user: {" + key + "}}]", "x"),
                HasSubstr("is not supported"));
  }
}

TEST(KubeServerUrl, IsShownWithoutAPassword) {
  Server server;
  for (const char* url : {"https://h:1/p@q", "https://[fd00::1]:6443"}) {
    server.url = url;
    EXPECT_EQ(server.shown(), url);
  }
  server.url = "https://bob:top@secret@h:1/p";
  EXPECT_EQ(server.shown(), "https://h:1/p");
}

class KubeExec : public KubeAccess {
 protected:
  Access with(const std::string& script) {
    ::chmod(write("program", "#!/bin/sh\n" + script).c_str(), 0755);
    Access a;
    a.server.url = "https://h";
    a.exec = ExecPlugin{
        "./program", "client.authentication.k8s.io/v1", folder, {"x"}, {{"ADDED", "yes"}}, true};
    return a;
  }
};

TEST_F(KubeExec, GivesATokenUntilItRunsOut) {
  const Access a = with(R"(echo run >>)" + folder + R"(/runs
[ "$1" = x ] && [ "$ADDED" = yes ] || exit 3
case "$KUBERNETES_EXEC_INFO" in *'"server":"https://h"'*) ;; *) exit 4 ;; esac
echo '{"kind":"ExecCredential","status":{"token":"tok","expirationTimestamp":"2999-01-01T00:00:00Z"}}')");
  CredentialSource source(a);
  ASSERT_TRUE(source.get(soon()).ok()) << source.get(soon()).status().text();
  EXPECT_EQ(source.get(soon()).value().token, "tok");
  EXPECT_EQ(read_file(folder + "/runs"), "run\n");
  source.refused();
  EXPECT_EQ(source.get(soon()).value().token, "tok");
  EXPECT_EQ(read_file(folder + "/runs"), "run\nrun\n");
}

// A renewal keeps nobody waiting, and its failure is nobody's as long as the token is good.
TEST_F(KubeExec, ATokenServesUntilItsEndWhileTheNextIsFetched) {
  const Access a = with("cd " + folder + R"(
echo run >>runs
case $(wc -l <runs) in
  1) end=$(date -u -d +6seconds +%Y-%m-%dT%H:%M:%SZ) ;;
  2) exit 1 ;;
  *) sleep 2 ;;
esac
echo "{\"status\":{\"token\":\"first\",\"expirationTimestamp\":\"$end\"}}")");
  CredentialSource source(a);
  ASSERT_EQ(source.get(soon()).value().token, "first");
  const auto runs = [&] { return read_file(folder + "/runs").size() / 4; };
  for (int i = 0; i < 400 && runs() < 3; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const auto got = source.get(soon());
    ASSERT_TRUE(got.ok()) << got.status().text();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1));
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(runs(), 3U);
}

TEST_F(KubeExec, TheKubeconfigsEnvironmentWinsAndSignalsArrive) {
  ::setenv("ADDED", "from the shell", 1);
  ::setenv("KUBERNETES_EXEC_INFO", "of somebody else", 1);
  const Access a = with(R"sh([ "$ADDED" = yes ] && [ "$(env | grep -c ^ADDED=)" = 1 ] || exit 3
case "$KUBERNETES_EXEC_INFO" in *ExecCredential*) ;; *) exit 4 ;; esac
grep -q 'SigBlk:.0*$' /proc/self/status || exit 5
grep -q 'SigIgn:.*0...$' /proc/self/status || exit 6  # of SIGPIPE: 13
echo '{"kind":"ExecCredential","status":{"token":"tok"}}')sh");
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  const auto ignored = ::signal(SIGPIPE, SIG_IGN);
  CredentialSource source(a);
  EXPECT_EQ(source.get(soon()).status().text(), "");
  ::signal(SIGPIPE, ignored);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::unsetenv("ADDED");
  ::unsetenv("KUBERNETES_EXEC_INFO");
}

TEST_F(KubeExec, AProgramThatFailsIsLeftAloneForAWhile) {
  const Access a = with("echo run >>" + folder + "/runs\nexit 1");
  CredentialSource source(a);
  for (int i = 0; i < 20; ++i)
    EXPECT_THAT(source.get(soon()).status().text(), HasSubstr("exit code 1"));
  EXPECT_EQ(read_file(folder + "/runs"), "run\n");
}

TEST_F(KubeExec, WhatGoesWrongNamesTheProgram) {
  const auto said = [&](const std::string& script) {
    const Access a = with(script);
    CredentialSource source(a);
    const auto got = source.get(soon());
    EXPECT_FALSE(got.ok());
    EXPECT_EQ(got.status().code, sdk::Code::kUnavailable);
    EXPECT_THAT(got.status().text(), HasSubstr("program"));
    return got.status().text();
  };
  EXPECT_THAT(said("exit 7"), HasSubstr("exit code 7"));
  EXPECT_THAT(said("echo nonsense"), HasSubstr("no ExecCredential"));
  EXPECT_THAT(said("echo '{\"status\":{}}'"), HasSubstr("neither a token nor"));
  EXPECT_THAT(said("yes"), HasSubstr("printed too much"));
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THAT(said("exec sleep 60"), HasSubstr("did not end within 4 s"));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(6));
}

TEST(KubeBase64, BothWays) {
  for (const std::string text : {"", "a", "ab", "abc", "abcd"}) {
    EXPECT_EQ(decode_base64(encode_base64(text)), text);
  }
  EXPECT_EQ(decode_base64("YW Jj\n"), "abc");
  EXPECT_EQ(decode_base64("YWJ"), std::nullopt);
  EXPECT_EQ(decode_base64("!!!!"), std::nullopt);
}

}  // namespace
}  // namespace egw::kube
