// The types of the API, taken from its OpenAPI document: `make check` generates "fleet-api" and compares the page with it.
import type { components, paths } from "fleet-api";

export type Schemas = components["schemas"];

/** The paths that GET answers with JSON. */
export type JsonPath = {
  [P in keyof paths]: paths[P] extends { get: { responses: { 200: { content: { "application/json": unknown } } } } }
    ? P
    : never;
}[keyof paths];

type Operation<P extends JsonPath> = paths[P]["get"];

export type Answer<P extends JsonPath> =
  NonNullable<Operation<P>>["responses"][200]["content"]["application/json"];

type Query<P extends JsonPath> = Extract<NonNullable<Operation<P>>["parameters"]["query"], object>;

/** The paths whose answer may be a replica's: their questions take `asOf`. */
export type ReplicaPath = {
  [P in JsonPath]: [Query<P>] extends [never] ? never : "asOf" extends keyof Query<P> ? P : never;
}[JsonPath];

type Parameters<P extends JsonPath> = NonNullable<Operation<P>>["parameters"];

/** What a request to the path needs: `path` fills the template, `query` is checked by name and type. */
export type Asked<P extends JsonPath> = {
  [K in "path" | "query" as Parameters<P>[K & keyof Parameters<P>] extends undefined ? never : K]:
    Parameters<P>[K & keyof Parameters<P>];
};
