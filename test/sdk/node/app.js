// An app that finds penstock by its environment; "penstock run" starts it.
import { CommunicationProtocolEnum, DaprClient } from "@dapr/dapr";

const client = new DaprClient({ communicationProtocol: CommunicationProtocolEnum[process.argv[2]] });
const { error } = await client.pubsub.publish("bus", "t", { n: 1 });
if (error) throw error;
console.log(`published as ${(await client.metadata.get()).id}`);
await client.stop();
process.exit(0); // the SDK keeps its connection open
