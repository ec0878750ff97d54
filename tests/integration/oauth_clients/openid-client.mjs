// What an application does with openid-client; the order comes as JSON on standard input, the report goes out as JSON.
import * as oidc from 'openid-client'
import { readFileSync } from 'node:fs'

const { issuer, clientId, clientSecret, refreshToken } = JSON.parse(readFileSync(0))
const report = {}
const insecure = { algorithm: 'oauth2', execute: [oidc.allowInsecureRequests] }
const discovered = (id, authentication) => oidc.discovery(new URL(issuer), id, undefined, authentication, insecure)

for (const [name, authentication] of Object.entries({
  basic: oidc.ClientSecretBasic(clientSecret),
  post: oidc.ClientSecretPost(clientSecret),
})) {
  const config = await discovered(clientId, authentication)
  const tokens = await oidc.clientCredentialsGrant(config, { scope: 'a' })
  const before = await oidc.tokenIntrospection(config, tokens.access_token)
  await oidc.tokenRevocation(config, tokens.access_token)
  const after = await oidc.tokenIntrospection(config, tokens.access_token)
  report[name] = { scope: tokens.scope, before: before.active, client: before.client_id, after: after.active }
}

const app = await discovered('fastauth', oidc.None())
const second = await oidc.refreshTokenGrant(app, refreshToken)
const third = await oidc.refreshTokenGrant(app, second.refresh_token)
report.refresh = new Set([refreshToken, second.refresh_token, third.refresh_token]).size
await oidc.tokenRevocation(app, third.refresh_token)
try {
  await oidc.refreshTokenGrant(app, third.refresh_token)
} catch (error) {
  report.revoked = error.error
}
try {
  await oidc.clientCredentialsGrant(await discovered(clientId, oidc.ClientSecretBasic('wrong')))
} catch (error) {
  report.wrong = error.cause?.[0]?.scheme ?? error.error ?? error.code
}
console.log(JSON.stringify(report))
