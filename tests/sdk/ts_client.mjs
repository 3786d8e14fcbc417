// A client made with the TypeScript SDK: URL CALLS, where CALLS is JSON: [[tool, arguments], …].
//
// Connects, lists the tools, makes the calls one after another, ends the session, and prints what happened as JSON.
// NODE_MODULES names the folder that holds the SDK: an ES module is looked up from where it stands, not from NODE_PATH.

import { pathToFileURL } from "node:url";

const sdk = pathToFileURL(`${process.env.NODE_MODULES}/@modelcontextprotocol/sdk/`);
const { Client } = await import(new URL("dist/esm/client/index.js", sdk));
const { SSEClientTransport } = await import(new URL("dist/esm/client/sse.js", sdk));
const { StreamableHTTPClientTransport } = await import(new URL("dist/esm/client/streamableHttp.js", sdk));

const [url, calls] = [process.argv[2], JSON.parse(process.argv[3])];
const client = new Client({ name: "typescript-sdk", version: "1.0.0" });
const old = url.endsWith("/sse"); // the transport of 2024-11-05
const transport = new (old ? SSEClientTransport : StreamableHTTPClientTransport)(new URL(url));
await client.connect(transport);
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const made = [];
for (const [name, args] of calls) {
  const progress = [];
  let outcome;
  try {
    const onprogress = (told) => progress.push(told.progress);
    const result = await client.callTool({ name, arguments: args }, undefined, { onprogress });
    outcome = result.isError ? "tool_error" : "ok";
  } catch (error) {
    outcome = `${error.name}: ${error.message}`;
  }
  made.push({ name, outcome, progress });
}
if (!old) await transport.terminateSession();
await client.close();
const server = client.getServerVersion().name;
console.log(JSON.stringify({ server, revision: transport.protocolVersion, tools, calls: made }));
