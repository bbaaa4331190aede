# What cluster/autoscaler/aws.yaml needs: roles for its machines and a security group. Ray would otherwise create a role with
# full rights over EC2 and S3, and a group that accepts ssh from everywhere.
#
#   terraform -chdir=infra/launcher apply -var bucket=YOUR-BUCKET -var ssh_cidr=YOUR.ADDRESS/32
#
# Put the outputs into cluster/autoscaler/aws.yaml.

terraform {
  required_version = ">= 1.6"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

variable "bucket" {
  description = "The bucket of data sets and runs."
  type        = string
}

variable "ssh_cidr" {
  description = "Address range from which the launcher uses ssh."
  type        = string
  validation {
    condition     = can(cidrhost(var.ssh_cidr, 0)) && tonumber(split("/", var.ssh_cidr)[1]) >= 16
    error_message = "Give your own address, such as 203.0.113.7/32."
  }
}

variable "create_spot_role" {
  description = "Create the account's service-linked role for spot machines; false if the account has it."
  type        = bool
  default     = true
}

variable "region" {
  description = "AWS region; that of cluster/autoscaler/aws.yaml."
  type        = string
  default     = "eu-central-1"
}

provider "aws" {
  region = var.region
}

data "aws_caller_identity" "me" {}

data "aws_vpc" "default" {
  default = true
}

data "aws_subnets" "default" {
  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.default.id]
  }
}

resource "aws_security_group" "ray" {
  name        = "vadv-ray"
  description = "Ray nodes: anything between them, ssh from one address range"
  vpc_id      = data.aws_vpc.default.id
  ingress {
    description = "between nodes"
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    self        = true
  }
  ingress {
    description = "ssh of the launcher"
    protocol    = "tcp"
    from_port   = 22
    to_port     = 22
    cidr_blocks = [var.ssh_cidr]
  }
  egress {
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "worker" {
  statement {
    actions   = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    resources = ["arn:aws:s3:::${var.bucket}"]
  }
  statement {
    actions   = ["s3:GetObject"]
    resources = ["arn:aws:s3:::${var.bucket}/*"]
  }
  statement {
    actions   = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["arn:aws:s3:::${var.bucket}/runs/*", "arn:aws:s3:::${var.bucket}/exports/*"]
  }
  statement {
    actions = [
      "ecr:GetAuthorizationToken", "ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage",
    ]
    resources = ["*"]
  }
}

# The head runs Ray's autoscaler: it starts workers, gives them their role, and stops machines of this cluster only.
data "aws_iam_policy_document" "head" {
  source_policy_documents = [data.aws_iam_policy_document.worker.json]
  statement {
    actions   = ["ec2:Describe*", "ec2:RunInstances", "ec2:CreateTags", "ssm:GetParameters"]
    resources = ["*"]
  }
  statement {
    actions   = ["ec2:TerminateInstances", "ec2:StopInstances", "ec2:StartInstances"]
    resources = ["*"]
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/ray-cluster-name"
      values   = ["vadv"]
    }
  }
  statement {
    actions   = ["iam:PassRole"]
    resources = ["arn:aws:iam::${data.aws_caller_identity.me.account_id}:role/vadv-ray-worker"]
  }
}

# Spot on a new account needs this role; `terraform import` it if it exists.
resource "aws_iam_service_linked_role" "spot" {
  count            = var.create_spot_role ? 1 : 0
  aws_service_name = "spot.amazonaws.com"
}

locals {
  policies = {
    head   = data.aws_iam_policy_document.head.json
    worker = data.aws_iam_policy_document.worker.json
  }
}

resource "aws_iam_role" "ray" {
  for_each           = local.policies
  name               = "vadv-ray-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "ray" {
  for_each = local.policies
  name     = "vadv"
  role     = aws_iam_role.ray[each.key].id
  policy   = each.value
}

resource "aws_iam_instance_profile" "ray" {
  for_each = local.policies
  name     = "vadv-ray-${each.key}"
  role     = aws_iam_role.ray[each.key].name
}

output "security_group_id" {
  description = "SecurityGroupIds of both node types."
  value       = aws_security_group.ray.id
}

output "subnet_ids" {
  description = "SubnetIds of both node types."
  value       = data.aws_subnets.default.ids
}
