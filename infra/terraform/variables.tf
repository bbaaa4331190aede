variable "name" {
  description = "Name of the cluster and prefix of its resources; cluster/kuberay/setup/nodes.yaml repeats it."
  type        = string
  default     = "vadv"
}

variable "region" {
  description = "AWS region; GPU spot capacity varies widely between regions."
  type        = string
  default     = "eu-central-1"
}

variable "bucket" {
  description = "Name of the bucket for data sets and runs; must be unique across S3."
  type        = string
}

variable "writable_prefixes" {
  description = "Prefixes of the bucket that training may write to; the rest is read-only."
  type        = list(string)
  default     = ["runs", "exports"]
}

variable "image_tag" {
  description = "Tag of the images before -cpu and -gpu. A tag cannot be pushed twice: another build needs another one."
  type        = string
  default     = "0.2.0"
}

variable "admin_cidrs" {
  description = "Address ranges allowed to reach the Kubernetes API."
  type        = list(string)
  validation {
    condition     = length(var.admin_cidrs) > 0 && !contains(var.admin_cidrs, "0.0.0.0/0")
    error_message = "List the addresses of your administrators, not 0.0.0.0/0."
  }
}

variable "create_spot_role" {
  description = "Create the account's service-linked role for spot machines; false if the account has it."
  type        = bool
  default     = true
}
