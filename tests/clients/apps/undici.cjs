// An app on undici with its ProxyAgent, which asks for a tunnel even for http:// URLs.
const { fetch, ProxyAgent } = require(process.env.UNDICI);
const proxy = process.env.http_proxy || process.env.https_proxy;
const dispatcher = proxy && new ProxyAgent(proxy);
fetch(process.argv[2], dispatcher ? { dispatcher } : {}).then(async (answer) => {
  console.log(answer.status, await answer.text());
  process.exit(answer.ok ? 0 : 1);
});
