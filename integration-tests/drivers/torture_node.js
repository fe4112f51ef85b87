// Plays steps of `make torture` by node `pg`: see torture_psycopg.py.
const readline = require("readline");
const { Client } = require("pg");

const told = (result) => ({ columns: result.fields.length });

async function run(client, step, names) {
  const { statements, named } = step;
  const one = async (statement) => {
    try {
      if (named === null) return told(await client.query(statement.literal));
      if (named && !names.has(statement.text)) names.set(statement.text, `n${names.size}`);
      const name = named ? names.get(statement.text) : undefined;
      return told(await client.query({ name, text: statement.text, values: statement.values }));
    } catch (error) {
      return failed(error);
    }
  };
  if (step.kind !== "string") return Promise.all(statements.map(one));
  try {
    const results = await client.query(statements.map((statement) => statement.literal).join("; "));
    return (Array.isArray(results) ? results : [results]).map(told);
  } catch (error) {
    // Which one failed isn't told: any of them may have.
    const reply = failed(error);
    return statements.map(() => reply);
  }
}

function failed(error) {
  if (!error.code || error.code.length !== 5) throw error;
  return { state: error.code, message: error.message };
}

async function main() {
  const client = new Client();
  let lost = null;
  client.on("error", (error) => (lost = String(error)));
  await client.connect();
  const names = new Map();
  const say = (answer) => process.stdout.write(JSON.stringify(answer) + "\n");
  say({ replies: [] });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      const replies = await run(client, JSON.parse(line), names);
      say(lost ? { lost } : { replies });
    } catch (error) {
      say({ lost: String(error) });
    }
  }
  await client.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
